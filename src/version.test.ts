import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { TOOL, VERSION } from "./version.js";

test("name and version are those of package.json", () => {
  const packageJson = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  assert.equal(TOOL, packageJson.name);
  assert.equal(VERSION, packageJson.version);
});
