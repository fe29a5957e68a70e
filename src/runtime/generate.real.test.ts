/** Text from a real model: SmolLM2-135M-Instruct, greedily, against an independent PyTorch implementation. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { ChatSession } from "./chat.js";
import { type EndEvent, generate } from "./generate.js";
import { loadModel } from "./load.js";
import type { LoadedModel } from "./loaded-model.js";
import { sharedPath, smolLm2 } from "./real-models.test.util.js";

interface Reference {
  readonly prompts: readonly { readonly text: string; readonly greedyText: string }[];
}

const path = smolLm2();
const referencePath = sharedPath("reference/smollm2-135m.json");
const skip = path && referencePath ? false : "SmolLM2 or ../shared is missing";

describe("text from SmolLM2-135M", { skip }, () => {
  let model: LoadedModel;
  before(async () => {
    model = await loadModel(path!);
  });
  after(() => model.close());

  test("generate continues the reference's prompts as PyTorch does", async () => {
    const { prompts } = JSON.parse(readFileSync(referencePath!, "utf8")) as Reference;
    for (const { text, greedyText } of prompts) {
      let answer = "";
      for await (const event of generate(model, text, { maxTokens: 24 })) answer += event.text;
      assert.equal(answer, greedyText);
    }
  });

  test("a second turn of a conversation reuses the first and answers as if computed anew", async () => {
    const ask = async (chat: ChatSession, question: string): Promise<EndEvent & { answer: string }> => {
      let answer = "";
      for await (const event of chat.send(question)) {
        answer += event.text;
        if (event.type === "end") return { ...event, answer };
      }
      throw new Error("no end event");
    };
    const options = { contextLength: 512, maxTokens: 24 };
    const chat = new ChatSession(model, options);
    const first = await ask(chat, "What is the capital of France?");
    assert.match(first.answer, /Paris/);
    const second = await ask(chat, "And of Italy?");
    assert.ok(second.reusedTokens >= first.promptTokens, `${second.reusedTokens} tokens reused`);
    const anew = model.tokenizer.applyChatTemplate(chat.messages.slice(0, -1));
    let answer = "";
    for await (const event of generate(model, anew, { maxTokens: 24, answer: true })) answer += event.text;
    assert.equal(second.answer, answer);
    chat.close();
  });
});
