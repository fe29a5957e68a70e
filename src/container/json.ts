/**
 * Canonical JSON (keys sorted by UTF-16 code units, no spaces: the same value is always the same bytes) and
 * small checked accessors over parsed JSON from outside. No schema library: a manifest has a dozen fields.
 */
import type { JsonValue } from "../codec/coded.js";
import { CorruptFileError } from "../errors.js";

/** Throws TypeError on values that JSON has no word for (NaN, undefined, functions): a defect of the caller. */
export function canonicalJson(value: JsonValue): string {
  if (value === null || typeof value === "boolean" || typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError(`${value} cannot be written as JSON`);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object") throw new TypeError(`a ${typeof value} cannot be written as JSON`);
  const object = value as { readonly [key: string]: JsonValue };
  const members = Object.keys(object)
    .sort()
    .filter((key) => object[key] !== undefined)
    .map((key) => `${JSON.stringify(key)}:${canonicalJson(object[key])}`);
  return `{${members.join(",")}}`;
}

/** Two spaces and a final line end, as Hugging Face writes its JSON files. */
export function prettyJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}

/** Parsed JSON with the path that leads to it, so that an error names the field. */
export class JsonField {
  constructor(
    readonly value: unknown,
    /** For messages: "pocketllm.json: layers.x.rows". */
    readonly path: string,
  ) {}

  fail(what: string): never {
    throw new CorruptFileError(`${this.path} ${what}`);
  }

  object(): Readonly<Record<string, unknown>> {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) this.fail("is not an object");
    return value as Record<string, unknown>;
  }

  get(key: string): JsonField {
    const object = this.object();
    const value = Object.hasOwn(object, key) ? object[key] : undefined;
    const field = new JsonField(value, `${this.path}${this.path.endsWith(":") ? " " : "."}${key}`);
    if (value === undefined) field.fail("is missing");
    return field;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.object(), key);
  }

  /** Members of an object, at most `limit`. */
  entries(limit: number): [string, JsonField][] {
    const entries = Object.entries(this.object());
    if (entries.length > limit) this.fail(`has ${entries.length} entries, at most ${limit} are read`);
    return entries.map(([key, value]) => [key, new JsonField(value, `${this.path}[${short(key)}]`)]);
  }

  /** Elements of an array, at most `limit`. */
  items(limit: number): JsonField[] {
    const { value } = this;
    if (!Array.isArray(value)) this.fail("is not an array");
    if (value.length > limit) this.fail(`has ${value.length} elements, at most ${limit} are read`);
    return value.map((item, i) => new JsonField(item, `${this.path}[${i}]`));
  }

  string(pattern?: RegExp): string {
    const { value } = this;
    if (typeof value !== "string") this.fail("is not a string");
    if (pattern && !pattern.test(value)) this.fail(`has an unusable value ${short(value)}`);
    return value;
  }

  integer(minimum: number, maximum: number): number {
    const { value } = this;
    if (!Number.isSafeInteger(value) || (value as number) < minimum || (value as number) > maximum)
      this.fail(`is ${short(value)}, expected a whole number from ${minimum} to ${maximum}`);
    return value as number;
  }

  oneOf<const T extends string | number>(values: readonly T[]): T {
    const { value } = this;
    if (!values.includes(value as T)) this.fail(`is ${short(value)}, expected ${values.join(" or ")}`);
    return value as T;
  }

  /** Any JSON, nested at most `depth` levels. */
  json(depth: number): JsonValue {
    const { value } = this;
    if (typeof value === "object" && value !== null) {
      if (depth === 0) this.fail("is nested too deeply");
      for (const child of Object.values(value)) new JsonField(child, this.path).json(depth - 1);
    }
    return value as JsonValue;
  }
}

/** A value for a message: never more than 60 characters, so that an error stays one line. */
function short(value: unknown): string {
  const text = JSON.stringify(value) ?? "absent";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
