/** Parquet files as the hub's conversion writes them, for tests. */
import { parquetWriteBuffer } from "hyparquet-writer";

type SchemaElement = NonNullable<Parameters<typeof parquetWriteBuffer>[0]["schema"]>[number];

const TEXT = { type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" } as const;

function texts(name: string): SchemaElement[] {
  return [
    { name, num_children: 1, repetition_type: "OPTIONAL", converted_type: "LIST" },
    { name: "list", num_children: 1, repetition_type: "REPEATED" },
    { name: "element", ...TEXT },
  ];
}

/** Columns by the kind of value of the first row: text, list of texts, bigint, boolean, or an object of lists. */
export function parquetOf(
  rows: readonly Readonly<Record<string, unknown>>[],
  rowGroupSize = 1000,
): Uint8Array {
  const names = Object.keys(rows[0]);
  const schema = names.flatMap((name): SchemaElement[] => {
    const value = rows[0][name];
    if (typeof value === "string") return [{ name, ...TEXT }];
    if (typeof value === "bigint") return [{ name, type: "INT64", repetition_type: "OPTIONAL" }];
    if (typeof value === "boolean") return [{ name, type: "BOOLEAN", repetition_type: "OPTIONAL" }];
    if (Array.isArray(value)) return texts(name);
    const fields = Object.keys(value as object);
    return [
      { name, num_children: fields.length, repetition_type: "OPTIONAL" },
      ...fields.flatMap((field) => texts(field)),
    ];
  });
  return new Uint8Array(
    parquetWriteBuffer({
      columnData: names.map((name) => ({ name, data: rows.map((row) => row[name]) })),
      schema: [{ name: "schema", num_children: names.length }, ...schema],
      rowGroupSize,
    }),
  );
}
