/** `pocketllm inspect`: sizes of a model by part and bits a weight. */
import type { Command } from "commander";
import { type Inspection, inspectModel } from "../../container/inspect.js";
import { type CommandContext, defineCommand } from "../command.js";
import { megabytes } from "../format.js";
import { findModel, MODEL } from "../model.js";

interface InspectOptions {
  readonly layers?: boolean;
}

export function registerInspect(program: Command): void {
  const command = program
    .command("inspect")
    .description("show how large a model is by part, in bytes and bits a weight, against its 16-bit size")
    .argument("<model>", MODEL)
    .option("--layers", "list every tensor too");
  defineCommand<InspectOptions>(
    command,
    "pocketllm inspect ./smollm2-10x --layers",
    async (context, [source], options) => {
      const inspection = await inspectModel((await findModel(source, context)).path);
      print(context, source, inspection, options.layers ?? false);
      const { tensors, ...summary } = inspection;
      return options.layers ? { ...inspection } : summary;
    },
  );
}

function print(context: CommandContext, source: string, inspection: Inspection, layers: boolean): void {
  const { format, architecture, parameters, bytes16, weightBytes, ratio, bitsPerWeight } = inspection;
  context.print(
    `${source}: ${architecture} in ${format} form, ${(parameters / 1e6).toFixed(1)} M parameters`,
  );
  context.print(
    `weights ${megabytes(weightBytes)}, ${bitsPerWeight.toFixed(3)} bits a weight; ${megabytes(bytes16)} in 16 bits: ratio ${ratio.toFixed(2)}`,
  );
  const row = (name: string, weights: number, bytes: number, bits: number) =>
    `  ${name.padEnd(20)} ${String(weights).padStart(12)} ${megabytes(bytes).padStart(10)} ${bits.toFixed(3).padStart(8)}`;
  context.print(
    `  ${"part".padEnd(20)} ${"weights".padStart(12)} ${"bytes".padStart(10)} ${"bits".padStart(8)}`,
  );
  for (const part of inspection.parts)
    context.print(row(part.name, part.weights, part.bytes, part.bitsPerWeight));
  if (layers)
    for (const { name, method, shape, bitsPerWeight: bits, tiers } of inspection.tensors) {
      const ranges =
        tiers && tiers.length > 1
          ? ` (${tiers.map((tier) => `rows ${tier.rows.join("-")}: ${tier.bitsPerWeight.toFixed(2)}`).join(", ")})`
          : "";
      context.print(`  ${name} ${method} [${shape.join(", ")}] ${bits.toFixed(3)} bits${ranges}`);
    }
  for (const { name, bytes } of inspection.files)
    if (!name.endsWith(".safetensors")) context.print(`  beside the weights: ${name}, ${bytes} bytes`);
}
