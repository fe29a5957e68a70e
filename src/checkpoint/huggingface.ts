/**
 * A Hugging Face model folder as a checkpoint (Node only): config.json, model.safetensors or shards with
 * model.safetensors.index.json, and the tokenizer's files.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CorruptFileError, InputError } from "../errors.js";
import { ConfigReader, parseModelConfig, parseTokenIds } from "./architectures.js";
import type { Checkpoint, TokenizerFiles } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";
import { DenseCheckpoint } from "./dense-checkpoint.js";
import { FileSource } from "./file-source.js";
import { hashSources } from "./hash.js";
import { isObject, type JsonObject, parseJsonObject, quote } from "./json.js";
import { SafetensorsFile, type SafetensorsTensor } from "./safetensors.js";
import { matchTensors, requireFloats } from "./tensors.js";

/** Bounds on the JSON files, several times what the largest published models have. */
const MAX_CONFIG_BYTES = 2 ** 20;
const MAX_INDEX_BYTES = 32 * 2 ** 20;
const MAX_TOKENIZER_BYTES = 128 * 2 ** 20;
const MAX_SHARDS = 1000;

const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Opens a folder that has a config.json. Throws InputError, one line, on anything that cannot be used. */
export async function openHuggingFaceFolder(folder: string): Promise<Checkpoint> {
  const configFile = join(folder, "config.json");
  const huggingFaceConfig = await readJson(configFile, MAX_CONFIG_BYTES);
  if (huggingFaceConfig === null) throw new InputError(`${folder}: has no config.json`);
  const generationConfig = await readJson(join(folder, "generation_config.json"), MAX_CONFIG_BYTES);
  const config = withGenerationConfig(
    parseModelConfig(huggingFaceConfig, configFile),
    generationConfig,
    folder,
  );
  const files = await openWeights(folder);
  const close = async () => {
    for (const { source } of files) await (source as FileSource).close();
  };
  try {
    const owners = collectTensors(files);
    const stored = new Map<string, { shape: readonly number[]; storedAs: string }>();
    for (const [name, { tensor }] of owners)
      stored.set(name, { shape: tensor.shape, storedAs: tensor.dtype });
    const tensors = matchTensors(config, stored, folder);
    requireFloats(tensors, folder);
    return new DenseCheckpoint({
      source: folder,
      format: "huggingface",
      config,
      huggingFaceConfig,
      generationConfig,
      tensors,
      load: (name) => {
        const { storedName } = tensors.get(name)!;
        return owners.get(storedName)!.file.readF32(storedName);
      },
      tokenizer: () => readTokenizerFiles(folder),
      hash: (signal) =>
        hashSources(
          files.map((file) => file.source),
          signal,
        ),
      close,
    });
  } catch (error) {
    await close();
    throw error;
  }
}

/** generation_config.json may name more tokens that end a text (Llama 3, Qwen). */
function withGenerationConfig(
  config: ModelConfig,
  generation: JsonObject | null,
  folder: string,
): ModelConfig {
  if (!generation) return config;
  const read = new ConfigReader(generation, join(folder, "generation_config.json"));
  const ids = parseTokenIds(read, "eos_token_id", generation, config.vocabularySize);
  return { ...config, eosTokenIds: [...new Set([...config.eosTokenIds, ...ids])] };
}

/** The weight files of a folder, opened, in the order of their names; for shards checked against the index. */
async function openWeights(folder: string): Promise<SafetensorsFile[]> {
  const names = await readdir(folder);
  if (!names.includes(WEIGHTS) && !names.includes(INDEX)) throw noWeights(folder, names);
  const index = names.includes(WEIGHTS) ? null : await readIndex(join(folder, INDEX));
  const shards = index ? [...new Set(index.values())].sort() : [WEIGHTS];
  const files: SafetensorsFile[] = [];
  try {
    for (const shard of shards) {
      if (!names.includes(shard))
        throw new InputError(
          `${join(folder, shard)}: is missing, but ${INDEX} names it; download the model again`,
        );
      const source = await FileSource.open(join(folder, shard));
      try {
        files.push(await SafetensorsFile.open(source));
      } catch (error) {
        await source.close();
        throw error;
      }
    }
    if (index)
      for (const [tensor, shard] of index)
        if (!files[shards.indexOf(shard)].tensors.has(tensor))
          throw new CorruptFileError(
            `${join(folder, shard)}: tensor ${quote(tensor)} is missing, but ${INDEX} says it is there`,
          );
    return files;
  } catch (error) {
    for (const { source } of files) await (source as FileSource).close();
    throw error;
  }
}

/** Tensor name -> shard file name. A shard is a plain file name: nothing outside the folder is opened. */
async function readIndex(path: string): Promise<Map<string, string>> {
  const map = (await readJson(path, MAX_INDEX_BYTES))?.["weight_map"];
  if (!isObject(map)) throw new CorruptFileError(`${path}: has no weight_map`);
  const index = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !/^[\w.-]+\.safetensors$/.test(shard))
      throw new CorruptFileError(
        `${path}: ${quote(tensor)} is said to be in ${quote(String(shard))}, which is not the name of a safetensors file in this folder`,
      );
    index.set(tensor, shard);
  }
  const shards = new Set(index.values()).size;
  if (shards === 0 || shards > MAX_SHARDS)
    throw new CorruptFileError(`${path}: names ${shards} shards, expected 1 to ${MAX_SHARDS}`);
  return index;
}

function collectTensors(
  files: readonly SafetensorsFile[],
): Map<string, { file: SafetensorsFile; tensor: SafetensorsTensor }> {
  const owners = new Map<string, { file: SafetensorsFile; tensor: SafetensorsTensor }>();
  for (const file of files)
    for (const tensor of file.tensors.values()) {
      const other = owners.get(tensor.name);
      if (other)
        throw new CorruptFileError(
          `${file.source.name}: tensor ${quote(tensor.name)} is in ${other.file.source.name} too`,
        );
      owners.set(tensor.name, { file, tensor });
    }
  return owners;
}

/** tokenizer.json and what tokenizer_config.json, special_tokens_map.json and chat_template.jinja add to it. */
async function readTokenizerFiles(folder: string): Promise<TokenizerFiles | null> {
  const tokenizer = await readJson(join(folder, "tokenizer.json"), MAX_TOKENIZER_BYTES);
  if (tokenizer === null) {
    const other = (await readdir(folder)).find((name) =>
      /^(tokenizer\.model|tekken\.json|vocab\.json)$/.test(name),
    );
    if (other)
      throw new InputError(
        `${folder}: has ${other} but no tokenizer.json; save the tokenizer with Transformers' "fast" class first`,
      );
    return null;
  }
  const special = await readJson(join(folder, "special_tokens_map.json"), MAX_CONFIG_BYTES);
  const config = await readJson(join(folder, "tokenizer_config.json"), 8 * MAX_CONFIG_BYTES);
  const template = await readText(join(folder, "chat_template.jinja"), MAX_CONFIG_BYTES);
  return {
    tokenizer,
    config: {
      ...special,
      ...config,
      ...(template === null ? {} : { chat_template: new TextDecoder().decode(template) }),
    },
  };
}

/** The file's bytes, or null where there is no such file. */
async function readText(path: string, maxBytes: number): Promise<Uint8Array | null> {
  let size: number;
  try {
    const stats = await stat(path);
    if (!stats.isFile()) throw new InputError(`${path}: is not a regular file`);
    size = stats.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  if (size > maxBytes)
    throw new CorruptFileError(`${path}: has ${size} bytes, more than the limit of ${maxBytes}`);
  return await readFile(path);
}

async function readJson(path: string, maxBytes: number): Promise<JsonObject | null> {
  const bytes = await readText(path, maxBytes);
  return bytes && parseJsonObject(bytes, path);
}

function noWeights(folder: string, names: readonly string[]): InputError {
  const pickle = names.find((name) => /^pytorch_model.*\.bin$|\.(pth|pt|ckpt)$/.test(name));
  const other = names.find((name) => name.endsWith(".safetensors"));
  return new InputError(
    `${folder}: has no ${WEIGHTS} and no ${INDEX}` +
      (pickle
        ? `; ${pickle} is a Python pickle, which is not read: convert it to safetensors first`
        : other
          ? ` (only ${other})`
          : ""),
  );
}
