// Compiles the AssemblyScript kernels four times: for a shared memory (worker threads) and for a plain one
// ("single": browsers without cross-origin isolation), with SIMD alone and with relaxed SIMD ("fused").
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
  ["kernels.fused.wasm", ["--sharedMemory", "--enable", "simd,threads,relaxed-simd"]],
  ["kernels.single.wasm", ["--enable", "simd"]],
  ["kernels.single.fused.wasm", ["--enable", "simd,relaxed-simd"]],
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
