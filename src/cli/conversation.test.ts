import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { alphabetModel } from "../runtime/alphabet-model.test.util.js";
import { ChatSession } from "../runtime/chat.js";
import { converse } from "./conversation.js";

interface Setup {
  readonly terminal?: boolean;
  readonly contextLength?: number;
  readonly maxTokens?: number;
  /** Called with everything written so far, after each write. */
  readonly onWrite?: (written: string) => void;
}

function start({ terminal = false, contextLength = 512, maxTokens = 3, onWrite }: Setup) {
  const chat = new ChatSession(alphabetModel({ contextLength }), { maxTokens });
  const input = new PassThrough();
  const screen = terminal ? new PassThrough().resume() : null;
  const abort = new AbortController();
  const log: string[] = [];
  const shown = { text: "" };
  const write = (text: string) => {
    shown.text += text;
    onWrite?.(shown.text);
  };
  const done = converse(chat, {
    input,
    terminal: screen,
    write,
    log: (line) => log.push(line),
    signal: abort.signal,
  });
  return { chat, input, abort, log, shown, done };
}

test("piped input: a question a line, commands, the end of the input", async () => {
  const { chat, input, log, shown, done } = start({});
  input.end("one\n\n/system be brief\ntwo\n/reset\n/nonsense\nthree");
  await done;
  assert.equal(shown.text, "abc\nabc\nabc\n");
  assert.deepEqual(
    chat.messages.map(({ role, content }) => `${role}: ${content}`),
    ["system: be brief", "user: three", "assistant: abc"],
  );
  assert.equal(log.length, 1);
  assert.match(log[0], /\/reset .*\/system .*\/quit/);
});

test("/quit ends although more input follows; /system alone removes the message", async () => {
  const { chat, input, shown, done } = start({});
  input.write("/system x\n/system\none\n/quit\ntwo\n");
  await done;
  assert.equal(shown.text, "abc\n");
  assert.equal(chat.messages.length, 2);
});

test("on a terminal Ctrl-C stops the answer, and a second one ends the conversation", async () => {
  let pressed = false;
  const { chat, input, done } = start({
    terminal: true,
    maxTokens: 26,
    onWrite: (written) => {
      if (written === "abcd" && !pressed) {
        pressed = true;
        input.write("\x03");
      }
      // The conversation has gone on: nothing is being answered now.
      if (written.endsWith("\n")) setImmediate(() => input.write("\x03"));
    },
  });
  input.write("question\r");
  await done;
  assert.equal(chat.messages.length, 2);
  const answer = chat.messages[1].content;
  assert.ok(answer.startsWith("abcd") && answer.length < 26, answer);
});

test("the process's signal ends the answer and the conversation", async () => {
  const { chat, input, abort, done } = start({
    maxTokens: 26,
    onWrite: (written) => written.endsWith("abcd") && abort.abort(),
  });
  input.write("one\ntwo\n");
  await done;
  assert.deepEqual(
    chat.messages.map(({ content }) => content),
    ["one", "abcd"],
  );
});

test("a full context: reported on a terminal, an error on piped input", async () => {
  const long = "x".repeat(200);
  const piped = start({ contextLength: 128 });
  piped.input.end(`${long}\n`);
  await assert.rejects(piped.done, InputError);
  const terminal = start({ contextLength: 128, terminal: true });
  terminal.input.write(`${long}\rshort\r/quit\r`);
  await terminal.done;
  assert.match(terminal.log[0], /context holds 128/);
  assert.equal(terminal.shown.text, "abc\n");
});
