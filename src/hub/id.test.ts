import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { parseDatasetId, parseModelId } from "./id.js";

test("names of the hub, and what is none", () => {
  const model = (text: string) => {
    const id = parseModelId(text);
    return id && [id.name, id.file, id.revision];
  };
  assert.deepEqual(model("org/name"), ["org/name", null, "main"]);
  assert.deepEqual(model("HuggingFaceTB/SmolLM2-1.7B@v1.0"), ["HuggingFaceTB/SmolLM2-1.7B", null, "v1.0"]);
  assert.deepEqual(model("o/n@refs/pr/3"), ["o/n", null, "refs/pr/3"]);
  assert.deepEqual(model("o/n/a-Q4_K.gguf@main"), ["o/n", "a-Q4_K.gguf", "main"]);
  assert.deepEqual(model("o/n/sub/a b.gguf"), ["o/n", "sub/a b.gguf", "main"]);
  for (const text of [
    "name",
    "./o/n",
    "../n/x",
    "/o/n",
    "o/n/x",
    "o/n@",
    "o/../n",
    "o/n.",
    "~/n",
    "o/a.gguf",
    "o\\n",
  ])
    assert.equal(model(text), null, text);
  for (const text of ["o/n@../x", "o/n@a/../b", "o/n/../../x.gguf", "o/n/..\\x.gguf"]) {
    try {
      assert.equal(parseModelId(text), null);
    } catch (error) {
      assert.ok(error instanceof InputError, text);
    }
  }
  assert.deepEqual(parseDatasetId("allenai/ai2_arc:ARC-Easy@abc"), {
    name: "allenai/ai2_arc",
    config: "ARC-Easy",
    revision: "abc",
  });
  assert.deepEqual(parseDatasetId("o/n"), { name: "o/n", config: null, revision: null });
  for (const text of ["./a/b", "../x.jsonl", "/x", "o/n:", "o/n/x"]) assert.equal(parseDatasetId(text), null);
});
