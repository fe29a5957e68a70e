/** Opens a model on disk or of the hub, whatever its format (Node only). */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { InputError } from "../errors.js";
import { localModel } from "../hub/local-model.js";
import type { HubOptions } from "../hub/repository.js";
import type { Checkpoint } from "./checkpoint.js";
import { FileSource } from "./file-source.js";
import { openGguf } from "./gguf.js";
import { hashSources } from "./hash.js";
import { openHuggingFaceFolder } from "./huggingface.js";
import { openLlama2c } from "./llama2c.js";

const FORMATS = "a Hugging Face folder, a .gguf file, a llama2.c .bin file or org/name on the hub";

/**
 * `source`: a Hugging Face folder, a `.gguf` file or a llama2.c `.bin` file, or where there is no such path, a
 * model of the hub (`localModel`). Checks configuration and every tensor's presence, shape and place; weights are
 * read later, one at a time. Throws InputError, one line, when the source cannot be used. Close the checkpoint
 * when done.
 */
export async function openCheckpoint(source: string, options: HubOptions = {}): Promise<Checkpoint> {
  const { path } = await localModel(source, options);
  const kind = await kindOf(path);
  if (kind === "folder") return await openFolder(path);
  if (kind === "other") throw new InputError(`${path}: is neither a file nor a folder; give ${FORMATS}`);
  return await openFile(path);
}

async function kindOf(source: string): Promise<"folder" | "file" | "other"> {
  try {
    const stats = await stat(source);
    return stats.isDirectory() ? "folder" : stats.isFile() ? "file" : "other";
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (
      code !== "ENOENT" &&
      code !== "ENOTDIR" &&
      code !== "ENAMETOOLONG" &&
      code !== "ERR_INVALID_ARG_VALUE"
    )
      throw error;
    throw new InputError(`${source}: no such file or folder; give ${FORMATS}`);
  }
}

async function openFolder(folder: string): Promise<Checkpoint> {
  const names = await readdir(folder);
  if (names.includes("pocketllm.json"))
    throw new InputError(
      `${folder}: is a PocketLLM folder, compressed already; it can be run, but not read as a checkpoint: give the original model`,
    );
  if (names.includes("config.json")) return await openHuggingFaceFolder(folder);
  const gguf = names.find((name) => name.endsWith(".gguf"));
  throw new InputError(
    gguf
      ? `${folder}: has no config.json; for a GGUF model give the file itself, such as ${join(folder, gguf)}`
      : `${folder}: has no config.json, so it is no Hugging Face folder; give ${FORMATS}`,
  );
}

async function openFile(path: string): Promise<Checkpoint> {
  const file = await FileSource.open(path);
  try {
    const options = {
      source: file,
      hash: (signal?: AbortSignal) => hashSources([file], signal),
      close: () => file.close(),
    };
    const magic = new TextDecoder("latin1").decode(await file.read(0, Math.min(4, file.size)));
    if (magic === "GGUF") return await openGguf(options);
    if (path.endsWith(".gguf"))
      throw new InputError(`${path}: does not begin with "GGUF": it is no GGUF file`);
    if (path.endsWith(".safetensors"))
      throw new InputError(`${path}: give the folder that it is in, with its config.json: ${dirname(path)}`);
    if (magic.startsWith("PK\u0003") || magic.startsWith("\u0080\u0002"))
      throw new InputError(`${path}: is a Python pickle, which is not read: convert it to safetensors first`);
    if (path.endsWith(".bin"))
      return await openLlama2c({ ...options, openTokenizer: (size) => readBeside(path, size) });
    throw new InputError(`${path}: is no model file that is known; give ${FORMATS}`);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The tokenizer file beside a llama2.c model: tok512.bin (by vocabulary size) or tokenizer.bin. */
async function readBeside(path: string, vocabularySize: number): Promise<FileSource | null> {
  const names = await readdir(dirname(path));
  const name = [`tok${vocabularySize}.bin`, "tokenizer.bin"].find(
    (candidate) => names.includes(candidate) && candidate !== basename(path),
  );
  if (name === undefined) return null;
  return await FileSource.open(join(dirname(path), name));
}
