/**
 * A turn of the event loop. A backend without threads or a GPU queue computes synchronously, and awaiting it
 * runs nothing but promises: without a turn between tokens Ctrl-C, input and other requests would wait for
 * the end of the text. Costs a few microseconds in Node.
 */
export function eventLoopTurn(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  // Browsers: a message, since nested timers are held back by 4 ms.
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
