// Compiles the AssemblyScript kernels twice: kernels.wasm imports a shared memory (worker threads),
// kernels.single.wasm a plain one (browsers without cross-origin isolation). Both need SIMD.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const target = join(root, "dist/compute/wasm");
mkdirSync(target, { recursive: true });

const common = ["-O3", "--noAssert", "--runtime", "stub", "--importMemory"];
const limits = ["--initialMemory", "64", "--maximumMemory", "65536"];
for (const [name, flags] of [
  ["kernels.wasm", ["--sharedMemory", "--enable", "simd,threads"]],
  ["kernels.single.wasm", ["--enable", "simd"]],
]) {
  const { error, stderr } = await asc.main([
    join(root, "kernels/index.ts"),
    "--outFile",
    join(target, name),
    ...common,
    ...limits,
    ...flags,
  ]);
  if (error) {
    console.error(stderr.toString());
    process.exit(1);
  }
}
