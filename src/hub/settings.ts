/** Where the hub is, who asks, and where files are kept: the environment that Python's huggingface_hub reads, too. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { UsageError } from "../errors.js";

export interface HubSettings {
  /** Without a slash at its end. HF_ENDPOINT; default https://huggingface.co. */
  readonly endpoint: string;
  /** HF_TOKEN, or what `hf auth login` wrote to HF_TOKEN_PATH or HF_HOME/token. Null: ask as nobody. */
  readonly token: string | null;
  /** HF_HUB_OFFLINE=1: only what is in the cache. */
  readonly offline: boolean;
  /** HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub. */
  readonly cache: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** UsageError when HF_ENDPOINT is no http or https address or the token cannot be sent. */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const home =
    path(env["HF_HOME"]) ?? join(path(env["XDG_CACHE_HOME"]) ?? join(homedir(), ".cache"), "huggingface");
  const token =
    env["HF_TOKEN"]?.trim() || (await tokenFile(path(env["HF_TOKEN_PATH"]) ?? join(home, "token")));
  // fetch would refuse it with a message that quotes it.
  if (token && !/^[\x21-\x7e]+$/.test(token))
    throw new UsageError("HF_TOKEN is no token of the hub: it has spaces or letters that none has");
  return {
    endpoint: endpointOf(env["HF_ENDPOINT"]),
    token: token || null,
    offline: /^(1|true|yes|on)$/i.test(env["HF_HUB_OFFLINE"] ?? ""),
    cache: path(env["HF_HUB_CACHE"]) ?? path(env["HUGGINGFACE_HUB_CACHE"]) ?? join(home, "hub"),
  };
}

function endpointOf(given: string | undefined): string {
  const endpoint = (given || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint))
    throw new UsageError("HF_ENDPOINT is no http or https address");
  return endpoint;
}

/** Python expands `~` in these, shells do not within quotes. */
function path(value: string | undefined): string | undefined {
  if (!value) return undefined;
  return /^~(?=$|[\\/])/.test(value) ? homedir() + value.slice(1) : value;
}

async function tokenFile(file: string): Promise<string | null> {
  return await readFile(file, "utf8").then(
    (text) => text.trim(),
    () => null,
  );
}
