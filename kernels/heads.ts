// Addresses of attention's rows. Not exported from the module. The query heads that share a key head are rows of
// one problem: row r is token r / group, head r % group of the group.

/** The address of a row of a [tokens, heads, headSize] tensor; `size` is a row's bytes. */
// @ts-ignore: decorator
@inline
export function rowOf(base: usize, row: i32, group: i32, heads: i32, kv: i32, size: usize): usize {
  return base + <usize>((row / group) * heads + kv * group + (row % group)) * size;
}
