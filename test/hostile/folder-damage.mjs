// Ways to damage a PocketLLM folder, for the attacks of folders.mjs. Where the manifest vouches for what was changed,
// only what is inside can be refused.
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const MANIFEST = "pocketllm.json";

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Writes a manifest with a seal that fits, so that only what is inside can be refused. */
export async function seal(folder, value) {
  const { sha256: _, ...rest } = value;
  const body = `${JSON.stringify(rest).slice(0, -1)},`;
  await writeFile(join(folder, MANIFEST), `${body}"sha256":"${sha256(body)}"}\n`);
}

/** Changes the manifest and seals it again. */
export const manifest = (edit) => async (folder) => {
  const value = JSON.parse(await readFile(join(folder, MANIFEST), "utf8"));
  await seal(folder, edit(value) ?? value);
};

/** Renames a key of an object, at its place. */
export function rename(object, from, to) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key === from ? to : key, value]));
}

/** Changes one byte of a file without changing its size. */
export async function flip(path, at) {
  const file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0] ^= 1;
  await file.write(byte, 0, 1, at);
  await file.close();
}

export async function readShard(path) {
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
  return { header, data: bytes.subarray(8 + length), dataOffset: 8 + length };
}

/** Changes a stored tensor's bytes and lets the manifest vouch for them. */
export const tensor = (name, edit) => async (folder) => {
  const value = JSON.parse(await readFile(join(folder, MANIFEST), "utf8"));
  const { file } = value.tensors[name];
  const { header, data } = await readShard(join(folder, file));
  const [begin, end] = header[name].data_offsets;
  edit(data.subarray(begin, end));
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const bytes = Buffer.concat([length, text, data]);
  await writeFile(join(folder, file), bytes);
  value.files[file] = { bytes: bytes.length, sha256: sha256(bytes) };
  value.tensors[name].sha256 = sha256(data.subarray(begin, end));
  await seal(folder, value);
};

/** Changes a JSON file and lets the manifest vouch for it. */
export const json = (file, change) => async (folder) => {
  const path = join(folder, file);
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...change }));
  const bytes = await readFile(path);
  await manifest(({ files }) => {
    files[file] = { bytes: bytes.length, sha256: sha256(bytes) };
  })(folder);
};

export const config = (change) => json("config.json", change);

export const firstShard = (folder) =>
  join(
    folder,
    readdirSync(folder).find((name) => name.startsWith("model-00001")),
  );

/** Changes a layer's parameters. */
export const parameters = (layer, change) =>
  manifest(({ layers }) => {
    Object.assign(layers[layer].parameters, change);
  });
