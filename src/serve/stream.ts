/** Answers as server-sent events. */
import { Readable } from "node:stream";
import type { FastifyReply } from "fastify";
import { EventQueue } from "./engine/events.js";
import type { SequenceEvent } from "./engine/sequence.js";
import { toApiError } from "./errors.js";

/** The events of several sequences as they come, each with its sequence's index. */
export async function* merged(
  sequences: readonly AsyncIterable<SequenceEvent>[],
): AsyncGenerator<[index: number, event: SequenceEvent], void> {
  const queue = new EventQueue<[number, SequenceEvent]>();
  const pumps = sequences.map(async (events, index) => {
    for await (const event of events) queue.push([index, event]);
  });
  Promise.all(pumps).then(
    () => queue.end(),
    (error) => queue.end(error),
  );
  yield* queue;
}

/** Sends objects as they come, then `[DONE]`; an error on the way becomes the last event. */
export function sendEvents(
  reply: FastifyReply,
  objects: AsyncIterable<object>,
  onDefect: (error: unknown) => void,
): FastifyReply {
  async function* lines(): AsyncGenerator<string, void> {
    try {
      for await (const object of objects) yield `data: ${JSON.stringify(object)}\n\n`;
    } catch (error) {
      yield `data: ${JSON.stringify(toApiError(error, onDefect).body)}\n\n`;
    }
    yield "data: [DONE]\n\n";
  }
  return reply
    .header("content-type", "text/event-stream; charset=utf-8")
    .header("cache-control", "no-cache")
    .header("x-accel-buffering", "no")
    .send(Readable.from(lines()));
}
