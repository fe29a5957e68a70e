import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend, Buffer, ByteBuffer } from "../compute/backend.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { InputError } from "../errors.js";
import { TransformerSession } from "./session.js";
import { memoryCheckpoint, randomTensors, tinyConfig } from "./tiny-model.test.util.js";
import { freeWeights, loadDenseWeights, weightBytes } from "./weights.js";

/** Counts what is allocated; can be made to run out of memory after some allocations. */
function countingBackend() {
  const reference = new ReferenceBackend();
  const counts = {
    live: new Set<Buffer | ByteBuffer>(),
    allocationsLeft: Number.POSITIVE_INFINITY,
    liveBytes() {
      let bytes = 0;
      for (const buffer of counts.live) bytes += "length" in buffer ? 4 * buffer.length : buffer.byteLength;
      return bytes;
    },
  };
  const backend: Backend = Object.assign(reference, {
    allocate(length: number): Buffer {
      if (counts.allocationsLeft-- <= 0) throw new InputError("out of memory");
      const buffer = ReferenceBackend.prototype.allocate.call(reference, length);
      counts.live.add(buffer);
      return buffer;
    },
    free(buffer: Buffer | ByteBuffer): void {
      assert.ok(counts.live.delete(buffer), "freed what was not allocated, or twice");
    },
  });
  return { backend, counts };
}

const untied = tinyConfig({ tiedEmbeddings: false, qkvBias: true, qkNorm: true });

test("weightBytes is what the backend holds, and freeWeights gives all of it back", async () => {
  for (const config of [tinyConfig(), untied]) {
    const { backend, counts } = countingBackend();
    const weights = await loadDenseWeights(backend, memoryCheckpoint(config, randomTensors(config)));
    assert.equal(weightBytes(weights), counts.liveBytes());
    assert.equal(weights.head === weights.embedding, config.tiedEmbeddings);
    freeWeights(backend, weights);
    assert.equal(counts.live.size, 0);
  }
});

test("a load that fails at any tensor leaves nothing allocated", async () => {
  const tensors = randomTensors(untied);
  for (const missing of ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"]) {
    const { backend, counts } = countingBackend();
    const rest = new Map(tensors);
    rest.delete(missing);
    await assert.rejects(loadDenseWeights(backend, memoryCheckpoint(untied, rest)), new RegExp(missing));
    assert.equal(counts.live.size, 0, missing);
  }
});

test("an aborted load stops at the next layer and leaves nothing allocated", async () => {
  const { backend, counts } = countingBackend();
  const abort = new AbortController();
  const onProgress = ({ done }: { done: number }) => {
    if (done === 1) abort.abort(new InputError("interrupted"));
  };
  const loading = loadDenseWeights(backend, memoryCheckpoint(untied, randomTensors(untied)), {
    signal: abort.signal,
    onProgress,
  });
  await assert.rejects(loading, /interrupted/);
  assert.equal(counts.live.size, 0);
});

test("a session without enough memory gives back what it had got", async () => {
  const { backend, counts } = countingBackend();
  const weights = await loadDenseWeights(backend, memoryCheckpoint(untied, randomTensors(untied)));
  const before = counts.live.size;
  for (const allocations of [0, 5, 12]) {
    counts.allocationsLeft = allocations;
    assert.throws(() => new TransformerSession(backend, weights, 16), /out of memory/);
    assert.equal(counts.live.size, before);
  }
  counts.allocationsLeft = Number.POSITIVE_INFINITY;
  const session = new TransformerSession(backend, weights, 16);
  assert.ok(counts.live.size > before);
  session.free();
  assert.equal(counts.live.size, before);
});

test("progress counts layers and ends at the total", async () => {
  const backend: Backend = new ReferenceBackend();
  const config = tinyConfig();
  const seen: string[] = [];
  await loadDenseWeights(backend, memoryCheckpoint(config, randomTensors(config)), {
    onProgress: ({ stage, done, total }) => seen.push(`${stage} ${done}/${total}`),
  });
  assert.deepEqual(seen, [
    "loading weights 0/3",
    "loading weights 1/3",
    "loading weights 2/3",
    "loading weights 3/3",
  ]);
});
