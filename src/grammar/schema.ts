/**
 * Which JSON schemas an answer can be held to. The library enforces a part of JSON Schema and passes over the rest
 * without a word; a schema that would not hold is refused by name here. What is checked of size keeps its recursive
 * descent, in WebAssembly, within its stack.
 */
import { isObject } from "../checkpoint/json.js";
import { InputError } from "../errors.js";

/** Any JSON object, or a value that fits a schema. */
export type AnswerFormat =
  | { readonly type: "json" }
  | {
      readonly type: "schema";
      /** JSON Schema: an object, or true for any value. */
      readonly schema: unknown;
      /**
       * Properties and items that the schema does not name are not generated, unless it says additionalProperties; and
       * keywords that cannot be enforced are refused. Default true; false passes over such keywords.
       */
      readonly strict?: boolean | undefined;
    };

/** As the library takes it. */
export interface CheckedFormat {
  readonly schema: string;
  readonly strict: boolean;
}

const MAX_SCHEMA_BYTES = 2 ** 16;
const MAX_DEPTH = 48;
/** Of lengths and numbers of items. */
const MAX_COUNT = 2 ** 16 - 1;
/** Patterns are parsed by recursion (400 parentheses overflow the stack), and repetitions written out. */
const MAX_PATTERN = 500;
const MAX_GROUPS = 32;
const MAX_REPETITIONS = 2 ** 14;

/** Keywords that the library (xgrammar 0.1.27) does not enforce. */
const NOT_ENFORCED = [
  ...["multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then", "else"],
  ...["dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"],
  ...["$dynamicRef", "$recursiveRef", "contentSchema"],
];
const OF_TEXTS = ["minLength", "maxLength", "pattern", "format"];
const OF_NUMBERS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
/** Keywords whose value has schemas by name, in a list, or is one. */
const NAMED = ["properties", "patternProperties", "$defs", "definitions"];
const LISTS = ["anyOf", "oneOf", "allOf", "prefixItems"];
const SINGLE = ["items", "additionalProperties", "propertyNames", "additionalItems"];

/** InputError, one line that names the place, for a schema that cannot be enforced or is too large. */
export function checkFormat(format: AnswerFormat): CheckedFormat {
  if (format.type === "json") return { schema: '{"type":"object"}', strict: false };
  const { schema, strict = true } = format;
  checkBounds(schema, 0);
  const text = JSON.stringify(schema) as string | undefined;
  if (text === undefined || (schema !== true && !isObject(schema)))
    throw new InputError("the JSON schema is not an object");
  const { length } = new TextEncoder().encode(text);
  if (length > MAX_SCHEMA_BYTES)
    throw new InputError(`the JSON schema has ${length} bytes: at most ${MAX_SCHEMA_BYTES} are taken`);
  if (strict) checkSchema(schema, "the JSON schema");
  return { schema: text, strict };
}

/** Of all that it holds, whatever it means: what would overflow the library's stack or take minutes. */
function checkBounds(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null) return;
  if (depth > MAX_DEPTH) throw new InputError(`the JSON schema is nested deeper than ${MAX_DEPTH} levels`);
  for (const [key, inner] of Object.entries(value)) {
    const count = /^(min|max)(Length|Items|Properties)$/.test(key) && typeof inner === "number";
    if (count && !(Number.isInteger(inner) && inner >= 0 && inner <= MAX_COUNT))
      throw new InputError(`the JSON schema: ${key} is ${inner}: give a whole number from 0 to ${MAX_COUNT}`);
    if (key === "pattern" && typeof inner === "string") checkPattern(inner);
    if (key === "patternProperties" && isObject(inner))
      for (const name of Object.keys(inner)) checkPattern(name);
    checkBounds(inner, depth + 1);
  }
}

function checkPattern(pattern: string): void {
  const groups = pattern.split("(").length - 1;
  const repetitions = [...pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)]
    .map(([, least, most]) => Math.max(1, Number(least), Number(most ?? 0)))
    .reduce((a, b) => a * b, 1);
  if (pattern.length > MAX_PATTERN || groups > MAX_GROUPS || repetitions > MAX_REPETITIONS)
    throw new InputError(
      `the JSON schema: a pattern has ${pattern.length} characters, ${groups} groups and ${repetitions} repetitions: ` +
        `at most ${MAX_PATTERN}, ${MAX_GROUPS} and ${MAX_REPETITIONS} are taken`,
    );
}

function checkSchema(schema: unknown, at: string): void {
  if (!isObject(schema)) return;
  const refuse = (keyword: string, reason: string): never => {
    throw new InputError(
      `${at}: "${keyword}" ${reason}: leave it out and check the answer, or give strict false`,
    );
  };
  const has = (keyword: string) => Object.hasOwn(schema, keyword);
  const { type, properties, required, allOf, additionalProperties } = schema;
  for (const keyword of NOT_ENFORCED.filter(has)) refuse(keyword, "cannot be enforced");
  for (const keyword of OF_TEXTS.filter(has))
    if (type !== "string") refuse(keyword, 'is enforced with "type": "string" only');
  const range = has("minimum") && has("maximum") && type === "integer";
  for (const keyword of OF_NUMBERS.filter(has))
    if (!range || keyword.startsWith("exclusive"))
      refuse(keyword, "is enforced as minimum and maximum of an integer only");
  if (Array.isArray(allOf) && allOf.length > 1) refuse("allOf", "is enforced with one schema only");
  const known = isObject(properties) ? properties : {};
  if (Array.isArray(required) && additionalProperties === undefined && !has("patternProperties"))
    for (const name of required)
      if (typeof name !== "string" || !Object.hasOwn(known, name))
        refuse("required", `names ${JSON.stringify(name)}, which properties do not have`);
  for (const keyword of SINGLE) checkSchema(schema[keyword], `${at}, ${keyword}`);
  for (const keyword of LISTS) {
    const list = schema[keyword];
    if (Array.isArray(list))
      for (const [i, inner] of list.entries()) checkSchema(inner, `${at}, ${keyword} ${i}`);
  }
  for (const keyword of NAMED) {
    const named = schema[keyword];
    if (isObject(named))
      for (const [name, inner] of Object.entries(named)) checkSchema(inner, `${at}, ${keyword} "${name}"`);
  }
}
