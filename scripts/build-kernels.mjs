// Compiles the AssemblyScript kernels to dist/compute/wasm/kernels.wasm (SIMD + threads, imported shared memory).
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
mkdirSync(join(root, "dist/compute/wasm"), { recursive: true });
const { error, stderr } = await asc.main([
  join(root, "kernels/index.ts"),
  "--outFile",
  join(root, "dist/compute/wasm/kernels.wasm"),
  "-O3",
  "--noAssert",
  "--runtime",
  "stub",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "64",
  "--maximumMemory",
  "65536",
  "--enable",
  "simd,threads",
]);
if (error) {
  console.error(stderr.toString());
  process.exit(1);
}
