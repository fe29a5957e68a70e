import assert from "node:assert/strict";
import { test } from "node:test";
import { Allocator } from "./allocator.js";

test("blocks are aligned, apart and inside the memory", () => {
  const allocator = new Allocator(100, 1 << 20);
  const blocks: [start: number, end: number][] = [];
  for (const [bytes, align] of [
    [1, 64],
    [100, 4096],
    [0, 64],
    [5000, 64],
    [64, 65536],
    [64, 64],
  ]) {
    const start = allocator.allocate(bytes, align);
    assert.ok(start !== undefined && start % align === 0 && start >= 128);
    blocks.push([start, start + Math.max(1, bytes)]);
  }
  blocks.sort(([a], [b]) => a - b);
  for (let i = 1; i < blocks.length; i++) assert.ok(blocks[i - 1][1] <= blocks[i][0]);
});

test("random allocation and freeing leaves one whole free range", () => {
  const size = 1 << 20;
  const allocator = new Allocator(0, size);
  let state = 1;
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const held = new Map<number, number>();
  for (let i = 0; i < 5000; i++) {
    if (random(2) === 0 && held.size > 0) {
      const pointer = [...held.keys()][random(held.size)];
      held.delete(pointer);
      allocator.free(pointer);
    } else {
      const bytes = random(20_000);
      const pointer = allocator.allocate(bytes, 64 << random(3));
      if (pointer === undefined) continue;
      for (const [other, length] of held)
        assert.ok(pointer + bytes <= other || other + length <= pointer, "blocks overlap");
      held.set(pointer, bytes);
    }
  }
  for (const pointer of held.keys()) allocator.free(pointer);
  assert.equal(allocator.bytesInUse, 0);
  assert.equal(allocator.allocate(size, 64), 0);
});

test("growth is joined with free space at the end", () => {
  const allocator = new Allocator(0, 1024);
  const first = allocator.allocate(512, 64);
  assert.equal(first, 0);
  assert.equal(allocator.allocate(1024, 64), undefined);
  assert.equal(allocator.shortfall(1024, 64), 512);
  allocator.extend(1536);
  assert.equal(allocator.allocate(1024, 64), 512);
});

test("addresses above 2 GiB stay positive", () => {
  const allocator = new Allocator(3 * 2 ** 30, 2 ** 32);
  const pointer = allocator.allocate(1000, 4096);
  assert.equal(pointer, 3 * 2 ** 30);
  assert.throws(() => allocator.free(64), /not an allocated block/);
});
