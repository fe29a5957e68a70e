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

/**
 * On a thread that a message brought `memory` to. Where the memory grew at that moment, V8 of Node 20 to 24 keeps its
 * old size on this thread, and memory.fill and memory.copy trap beyond it, until the next growth that is announced.
 * Growing by nothing reads the size anew, and from then on each growth is announced here.
 */
export function instantiateOnWorker(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  const kernels = instantiate(module, memory);
  memory.grow(0);
  return kernels;
}

/** AssemblyScript calls this on a failed `assert`; the pointers are to strings that no kernel has. */
function abort(_message: number, _file: number, line: number, column: number): never {
  throw new Error(`a kernel aborted at ${line}:${column}`);
}
