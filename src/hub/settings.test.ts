import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { hubSettings } from "./settings.js";

test("the environment, as Python's huggingface_hub reads it", async () => {
  const at = async (env: Record<string, string>) => await hubSettings({ HF_HOME: "/home", ...env });
  assert.deepEqual(await at({}), {
    endpoint: "https://huggingface.co",
    token: null,
    offline: false,
    cache: join("/home", "hub"),
  });
  assert.equal((await at({ HF_HUB_CACHE: "/c" })).cache, "/c");
  assert.equal((await at({ HF_TOKEN: " hf_x\n" })).token, "hf_x");
  assert.equal((await at({ HF_ENDPOINT: "http://mirror:1/" })).endpoint, "http://mirror:1");
  assert.equal((await at({ HF_HUB_OFFLINE: "1" })).offline, true);
  assert.equal((await at({ HF_HUB_OFFLINE: "0" })).offline, false);
  assert.equal((await hubSettings({ XDG_CACHE_HOME: "/x" })).cache, join("/x", "huggingface", "hub"));
  await assert.rejects(at({ HF_ENDPOINT: "file:///x" }), /HF_ENDPOINT is no http or https address/);
});
