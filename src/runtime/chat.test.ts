import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { alphabetModel } from "./alphabet-model.test.util.js";
import { ChatSession } from "./chat.js";
import type { EndEvent } from "./generate.js";

async function ask(
  chat: ChatSession,
  content: string,
  signal?: AbortSignal,
): Promise<EndEvent & { answer: string }> {
  let answer = "";
  for await (const event of chat.send(content, signal ? { signal } : {})) {
    answer += event.text;
    if (event.type === "end") return { ...event, answer };
  }
  throw new Error("no end event");
}

test("turns become messages, and a second turn computes only what is new", async () => {
  const model = alphabetModel({ contextLength: 256 });
  const chat = new ChatSession(model, { system: "s", maxTokens: 3 });
  const first = await ask(chat, "q");
  assert.equal(first.answer, "abc");
  assert.equal(first.reusedTokens, 0);
  const second = await ask(chat, "r");
  assert.equal(second.answer, "abc");
  assert.deepEqual(chat.messages, [
    { role: "system", content: "s" },
    { role: "user", content: "q" },
    { role: "assistant", content: "abc" },
    { role: "user", content: "r" },
    { role: "assistant", content: "abc" },
  ]);
  // Everything of the first turn but the last answer token, which was never run.
  assert.equal(second.reusedTokens, first.promptTokens + 2);
  chat.close();
  assert.equal(model.openSessions(), 0);
});

test("reset forgets the turns, and a new system message changes the prompt from there on", async () => {
  const model = alphabetModel({ contextLength: 256 });
  const chat = new ChatSession(model, { system: "same", maxTokens: 2 });
  const first = await ask(chat, "question");
  chat.reset();
  assert.deepEqual(chat.messages, [{ role: "system", content: "same" }]);
  const again = await ask(chat, "question");
  assert.equal(again.reusedTokens, first.promptTokens - 1);
  chat.setSystem("other");
  const other = await ask(chat, "question");
  assert.equal(other.reusedTokens, model.tokenizer.encode("<|im_start|>system:").length);
  chat.setSystem(null);
  assert.equal(chat.messages[0].role, "user");
});

test("an answer that is cut short stays in the conversation; a failed turn does not", async () => {
  const model = alphabetModel({ contextLength: 64 });
  const chat = new ChatSession(model);
  const abort = new AbortController();
  let answer = "";
  for await (const event of chat.send("q", { signal: abort.signal })) {
    answer += event.text;
    if (answer === "abcd") abort.abort();
  }
  assert.deepEqual(chat.messages.at(-1), { role: "assistant", content: "abcd" });
  const before = chat.messages;
  await assert.rejects(
    ask(chat, "too long ".repeat(10)),
    (error) => error instanceof InputError && /context holds 64: start a new one/.test(error.message),
  );
  assert.deepEqual(chat.messages, before);
  const { finishReason } = await ask(chat, "q");
  assert.equal(finishReason, "length", "the answer ends where the context does");
});

test("a model without a chat template is refused at once", () => {
  const model = alphabetModel({ chatTemplate: null });
  assert.throws(() => new ChatSession(model), /no chat template/);
  assert.equal(model.openSessions(), 0);
});

test("a context that shifts forgets the oldest turns, never the system message", async () => {
  const model = alphabetModel({ contextLength: 80 });
  const chat = new ChatSession(model, { system: "S", maxTokens: 10, onContextFull: "shift" });
  for (const question of ["u", "v", "w", "x", "y"]) await ask(chat, question);
  const contents = chat.messages.map(({ content }) => content);
  assert.equal(contents[0], "S");
  assert.deepEqual(contents.slice(-2)[0], "y");
  assert.ok(contents.length < 11 && contents.length >= 3, contents.join());
  await assert.rejects(ask(chat, "z".repeat(100)), /start a new one, or allow a longer context/);
  chat.close();
  assert.equal(model.openSessions(), 0);
});
