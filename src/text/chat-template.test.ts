import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { byteLevelFiles } from "./fixtures.test.util.js";
import { createTokenizer } from "./tokenizer.js";

const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const messages = [
  { role: "user", content: "Hi" },
  { role: "assistant", content: "Hello." },
];

test("renders the conversation, with and without the opening of the answer", () => {
  const tokenizer = createTokenizer(byteLevelFiles({ chat_template: CHATML }));
  const text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n";
  assert.equal(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: false }), text);
  assert.equal(tokenizer.applyChatTemplate(messages), `${text}<|im_start|>assistant\n`);
});

test("named templates: the default one; bos_token and eos_token are known to it", () => {
  const chat_template = [
    { name: "tool_use", template: "tools" },
    { name: "default", template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}" },
  ];
  const tokenizer = createTokenizer(byteLevelFiles({ chat_template }));
  assert.equal(tokenizer.applyChatTemplate(messages), "<|im_start|>Hi<|im_end|>");
});

test("no template, a broken one, and one that refuses the conversation", () => {
  const render = (config: Record<string, unknown>) => () =>
    createTokenizer(byteLevelFiles(config)).applyChatTemplate(messages);
  const clear = (message: RegExp) => (error: unknown) =>
    error instanceof InputError && message.test(error.message);
  assert.throws(render({}), clear(/no chat template/));
  assert.throws(render({ chat_template: "{% for %}" }), clear(/chat template refuses/));
  assert.throws(
    render({ chat_template: "{{ raise_exception('roles must alternate') }}" }),
    clear(/roles must alternate/),
  );
});
