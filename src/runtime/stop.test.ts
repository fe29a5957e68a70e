import assert from "node:assert/strict";
import { test } from "node:test";
import { StopMatcher } from "./stop.js";

/** Everything shown, and whether a stop string was found. */
function feed(stops: string[], pieces: string[]): { shown: string; stopped: boolean; steps: string[] } {
  const matcher = new StopMatcher(stops);
  const steps: string[] = [];
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece);
    steps.push(text);
    if (stopped) return { shown: steps.join(""), stopped, steps };
  }
  steps.push(matcher.finish(""));
  return { shown: steps.join(""), stopped: false, steps };
}

test("text that may begin a stop string waits until it is known", () => {
  const { steps } = feed(["\n\nUser"], ["one\n", "\nU", "nder ", "two"]);
  assert.deepEqual(steps, ["one", "", "\n\nUnder ", "two", ""]);
});

test("the earliest stop string ends the text, wherever the pieces part", () => {
  const text = "abcaabxabc";
  const stops = ["bx", "aabx", "zz"];
  for (let first = 0; first <= text.length; first++) {
    for (let second = first; second <= text.length; second++) {
      const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second)];
      const { shown, stopped } = feed(stops, pieces);
      assert.deepEqual({ shown, stopped }, { shown: "abc", stopped: true }, JSON.stringify(pieces));
    }
  }
});

test("what was held back comes out at the end; nothing comes after a stop", () => {
  const matcher = new StopMatcher(["END"]);
  assert.equal(matcher.push("the EN").text, "the ");
  assert.equal(matcher.finish("!"), "EN!");
  const stopped = new StopMatcher(["END"]);
  assert.deepEqual(stopped.push("the END of"), { text: "the ", stopped: true });
  assert.equal(stopped.finish("more"), "");
  const late = new StopMatcher(["END"]);
  late.push("xEN");
  assert.equal(late.finish("D."), "", "the last piece completes the stop string");
});

test("a stop string that overlaps itself", () => {
  assert.deepEqual(feed(["aab"], ["a", "a", "a", "b"]).shown, "a");
});

test("empty stop strings are ignored", () => {
  assert.deepEqual(feed([""], ["x"]), { shown: "x", stopped: false, steps: ["x", ""] });
});
