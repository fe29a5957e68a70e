/** Bodies of requests: JSON in valid UTF-8, of bounded depth. */
import { ApiError } from "./errors.js";

/** Deeper than any tool's schema; renderers of templates recurse. */
const MAX_DEPTH = 64;

/** ApiError 400 for what is not JSON. A key `__proto__` is a key like others to JSON.parse, and refused as unknown. */
export function parseJsonBody(body: Buffer): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    throw new ApiError(400, "The body is not valid UTF-8.", { code: "invalid_utf8" });
  }
  if (depthOf(text) > MAX_DEPTH)
    throw new ApiError(400, `The body's JSON is nested more than ${MAX_DEPTH} levels deep.`, {
      code: "json_too_deep",
    });
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(400, "The body is not valid JSON.", { code: "invalid_json" });
  }
}

/** Of brackets outside strings. */
function depthOf(text: string): number {
  let depth = 0;
  let most = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (inString) {
      if (character === "\\") i++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "{" || character === "[") most = Math.max(most, ++depth);
    else if (character === "}" || character === "]") depth--;
  }
  return most;
}
