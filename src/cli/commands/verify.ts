/** `pocketllm verify`: checks every byte of a PocketLLM folder against its manifest. */
import type { Command } from "commander";
import { verifyFolder } from "../../container/verify.js";
import { InputError } from "../../errors.js";
import { defineCommand } from "../command.js";
import { findModel } from "../model.js";

export function registerVerify(program: Command): void {
  const command = program
    .command("verify")
    .description("check every file and tensor of a PocketLLM folder against the hashes in its manifest")
    .argument("<folder>", "PocketLLM folder, here or on the hub");
  defineCommand(command, "pocketllm verify ./smollm2-10x", async (context, [folder]) => {
    const { signal, onProgress } = context;
    const { path } = await findModel(folder, context);
    const { files, tensors, problems, unlisted } = await verifyFolder(path, { signal, onProgress });
    if (problems.length > 0) {
      // The first problem is the error's one line; the others go before it.
      for (const problem of problems.slice(1)) context.log(problem);
      const more = problems.length > 1 ? ` (and ${problems.length - 1} more, above)` : "";
      throw new InputError(`${problems[0]}${more}`);
    }
    context.print(`${folder}: ${files.length} files and ${tensors.length} tensors match`);
    return { files: files.length, tensors: tensors.length, problems, unlisted };
  });
}
