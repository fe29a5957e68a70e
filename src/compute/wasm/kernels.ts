/** The compiled kernels as functions: instantiating them on a memory, and naming them for other threads. */

/** Exported kernels by name. Pointers, lengths and scalars are all numbers. */
export type Kernels = Readonly<Record<string, (...args: number[]) => number>>;

/** Names of the exported functions; a kernel's index here is its number in a mailbox, the same on all threads. */
export function kernelNames(module: WebAssembly.Module): string[] {
  return WebAssembly.Module.exports(module)
    .filter((e) => e.kind === "function")
    .map((e) => e.name);
}

export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  const instance = new WebAssembly.Instance(module, { env: { memory, abort } });
  return instance.exports as unknown as Kernels;
}

/** AssemblyScript calls this on a failed `assert`; the pointers are to strings that no kernel has. */
function abort(_message: number, _file: number, line: number, column: number): never {
  throw new Error(`a kernel aborted at ${line}:${column}`);
}
