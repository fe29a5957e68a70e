/**
 * A worker thread of a runtime: instantiates the kernels on the shared memory, then runs jobs from its
 * mailbox for ever. It never returns to its event loop; the owner terminates it.
 */
import { platform } from "#platform";
import { Mailbox } from "./control.js";
import { instantiateOnWorker, kernelNames } from "./kernels.js";

platform.onWorkerStart(({ module, memory, control, slot }, post) => {
  const exports = instantiateOnWorker(module, memory);
  const kernels = kernelNames(module).map((name) => exports[name]);
  const mailbox = new Mailbox(control, slot, true);
  post("ready");
  for (;;) {
    const { kernel, args, wantsMessage } = mailbox.next();
    let error: string | undefined;
    try {
      kernels[kernel](...args);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
    }
    mailbox.finish(error);
    if (wantsMessage) post("done");
  }
});
