import assert from "node:assert/strict";
import { test } from "node:test";
import { CorruptFileError } from "../errors.js";
import { type ByteSource, bytesSource } from "./byte-source.js";
import { ReadAhead } from "./read-ahead.js";

const PIECE = 100;

/** 1,050 bytes, and the reads that were made of them. */
function counted(): { source: ByteSource; bytes: Uint8Array; reads: [offset: number, length: number][] } {
  const bytes = Uint8Array.from({ length: 1050 }, (_, i) => (i * 37) & 255);
  const inner = bytesSource(bytes, "counted");
  const reads: [number, number][] = [];
  const read = (offset: number, length: number) => {
    reads.push([offset, length]);
    return inner.read(offset, length);
  };
  return { source: { ...inner, read }, bytes, reads };
}

test("reads that follow one another are answered from pieces, each read once and one ahead", async () => {
  const { source, bytes, reads } = counted();
  const ahead = new ReadAhead(source, PIECE);
  assert.deepEqual([ahead.name, ahead.size], ["counted", 1050]);
  let at = 0;
  for (const length of [8, 0, 92, 1, 70, 60, 99, 99, 30]) {
    assert.deepEqual(await ahead.read(at, length), bytes.subarray(at, at + length), `${at} + ${length}`);
    at += length;
    const last = reads.at(-1)!;
    assert.ok(last[0] < Math.ceil(Math.max(at, 1) / PIECE) * PIECE + PIECE, "no further ahead than a piece");
  }
  assert.deepEqual(
    reads,
    Array.from({ length: reads.length }, (_, i) => [i * PIECE, PIECE]),
  );
  // To the end, where the last piece is shorter and nothing lies ahead.
  for (; at < 1050; at += 1) assert.deepEqual(await ahead.read(at, 1), bytes.subarray(at, at + 1));
  assert.deepEqual(reads.at(-1), [1000, 50]);
  assert.equal(reads.length, 11);
});

test("several at once are answered in any order", async () => {
  const { source, bytes, reads } = counted();
  const ahead = new ReadAhead(source, PIECE);
  const lengths = [30, 90, 90, 10, 99, 99];
  let at = 0;
  const wanted = lengths.map((length) => {
    at += length;
    return [at - length, length] as const;
  });
  const got = await Promise.all(wanted.map(([offset, length]) => ahead.read(offset, length)));
  wanted.forEach(([offset, length], i) => {
    assert.deepEqual(got[i], bytes.subarray(offset, offset + length));
  });
  assert.equal(new Set(reads.map(([offset]) => offset)).size, reads.length, "no piece is read twice");
});

test("long reads and those out of order are read as they are, and those after them from pieces again", async () => {
  const { source, bytes, reads } = counted();
  const ahead = new ReadAhead(source, PIECE);
  for (const [offset, length] of [
    [500, 20],
    [520, 250],
    [770, 10],
    [780, 30],
    [3, 40],
  ])
    assert.deepEqual(await ahead.read(offset, length), bytes.subarray(offset, offset + length));
  assert.deepEqual(reads, [
    [500, 20],
    [520, 250],
    [700, PIECE],
    [800, PIECE],
    [900, PIECE],
    [3, 40],
  ]);
});

test("a range that does not exist is refused; what fails ahead is told to who asks for it", async () => {
  const { source } = counted();
  await assert.rejects(new ReadAhead(source, PIECE).read(1000, 51), CorruptFileError);
  const broken: ByteSource = {
    ...source,
    read: async (offset, length) => {
      if (offset >= PIECE) throw new CorruptFileError("cut short");
      return await source.read(offset, length);
    },
  };
  const ahead = new ReadAhead(broken, PIECE);
  assert.equal((await ahead.read(0, 60)).length, 60);
  await assert.rejects(ahead.read(60, 60), /cut short/);
});
