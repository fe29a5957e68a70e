/** Which files of a repository make a model, and bringing them into the cache. */
import { readFile } from "node:fs/promises";
import { CorruptFileError, InputError } from "../errors.js";
import type { RemoteFile } from "./download.js";
import { formatId, type ModelId } from "./id.js";
import { fileIn, type HubOptions, Repository } from "./repository.js";

export interface DownloadedModel {
  /** The snapshot's folder, or the GGUF file in it. */
  readonly path: string;
  readonly commit: string;
}

const MANIFEST = "pocketllm.json";
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** What a checkpoint's readers look at beside the weights. */
const BESIDE =
  /^(config|generation_config|special_tokens_map|tokenizer[\w.-]*)\.json$|^chat_template\.(jinja|json)$/;
/** No manifest or index of a real model comes near; the readers have bounds of their own. */
const MAX_JSON_BYTES = 64 * 2 ** 20;
const MAX_NAMED_FILES = 2000;

/** Downloads what is missing. InputError, one line, when the repository has nothing that can be used. */
export async function fetchModel(id: ModelId, options: HubOptions): Promise<DownloadedModel> {
  const repository = await Repository.open(id, options);
  const file = repository.offline ? await fromCache(repository, id) : await fromHub(repository, id);
  await repository.keep();
  return {
    path: file === null ? repository.folder : fileIn(repository, file),
    commit: repository.commit,
  };
}

/** The GGUF file, or null: the whole snapshot is the model. */
async function fromHub(repository: Repository, id: ModelId): Promise<string | null> {
  if (id.file !== null) {
    const folder = id.file.includes("/") ? id.file.slice(0, id.file.lastIndexOf("/")) : "";
    const listed = (await repository.list({ folder })).get(id.file);
    if (!listed) throw new InputError(`${formatId(id)}: the repository has no file ${id.file}`);
    await repository.fetch([listed]);
    return id.file;
  }
  const files = await repository.list();
  const take = async (names: Iterable<string>) =>
    await repository.fetch(
      [...new Set(names)].map((name) => files.get(name)).filter((file) => file !== undefined),
    );
  if (files.has(MANIFEST)) {
    await take([MANIFEST]);
    const named = await namesIn(repository, files.get(MANIFEST)!, (json) =>
      Object.keys(Object(json["files"])),
    );
    // Weights last: what is small and wrong is seen first.
    await take(named.filter((name) => !name.endsWith(".safetensors")));
    await take(named);
    return null;
  }
  const weights = files.has(WEIGHTS) ? WEIGHTS : files.has(INDEX) ? INDEX : null;
  if (files.has("config.json") && weights !== null) {
    await take([...files.keys()].filter((name) => BESIDE.test(name)));
    await take([weights]);
    if (weights === INDEX)
      await take(
        await namesIn(repository, files.get(INDEX)!, (json) => Object.values(Object(json["weight_map"]))),
      );
    return null;
  }
  const file = onlyGguf(id, [...files.keys()], files.has("config.json"));
  await take([file]);
  return file;
}

/** Names of files that a JSON file of the repository gives. */
async function namesIn(
  repository: Repository,
  { path, bytes }: RemoteFile,
  select: (json: Record<string, unknown>) => unknown[],
): Promise<string[]> {
  const where = `${formatId(repository.id)}: ${path}`;
  if (bytes > MAX_JSON_BYTES)
    throw new CorruptFileError(`${where} has ${bytes} bytes, more than the limit of ${MAX_JSON_BYTES}`);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(fileIn(repository, path), "utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CorruptFileError(`${where} is not valid JSON`);
  }
  const names = [...new Set(select(Object(json) as Record<string, unknown>))];
  if (names.length > MAX_NAMED_FILES)
    throw new CorruptFileError(
      `${where} names ${names.length} files, at most ${MAX_NAMED_FILES} are fetched`,
    );
  return names.filter((name) => typeof name === "string");
}

async function fromCache(repository: Repository, id: ModelId): Promise<string | null> {
  const paths = await repository.pathsOnDisk();
  if (id.file !== null) {
    if (!paths.includes(id.file))
      throw new InputError(
        `${formatId(id)}: ${id.file} is not in the cache, and the hub cannot be asked for it`,
      );
    return id.file;
  }
  const names = paths.filter((path) => !path.includes("/"));
  if (names.includes(MANIFEST)) return null;
  if (names.includes("config.json") && (names.includes(WEIGHTS) || names.includes(INDEX))) return null;
  if (names.some((name) => name.endsWith(".gguf"))) return onlyGguf(id, names, false);
  throw new InputError(
    `${formatId(id)}: the cache has it only in part, and the hub cannot be asked for the rest`,
  );
}

function onlyGguf(id: ModelId, names: readonly string[], hasConfig: boolean): string {
  const found = names.filter((name) => name.toLowerCase().endsWith(".gguf")).sort();
  if (found.length === 1) return found[0];
  if (found.length > 1) {
    const shown =
      found.slice(0, 20).join(", ") + (found.length > 20 ? `, and ${found.length - 20} more` : "");
    const revision = id.revision === "main" ? "" : `@${id.revision}`;
    throw new InputError(
      `${formatId(id)}: has ${found.length} GGUF files: give one as ${id.name}/${found[0]}${revision}; there are ${shown}`,
    );
  }
  const pickle = names.find((name) => /^pytorch_model.*\.bin$|\.(pth|pt|ckpt)$/.test(name));
  throw new InputError(
    `${formatId(id)}: the repository has no model that is read: no pocketllm.json, no ${hasConfig ? "" : "config.json with "}${WEIGHTS} or its index, no .gguf` +
      (pickle === undefined ? "" : `; ${pickle} is a Python pickle: convert it to safetensors first`),
  );
}
