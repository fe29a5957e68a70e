/**
 * Ids in order of falling logit, the lowest id first among equals. Sorting a whole vocabulary of 49,152 takes
 * 10 ms and more, as long as the model needs for a token, so callers rank only what can matter.
 */
export function sortByLogit(ids: number[], logits: Float32Array): number[] {
  return ids.sort((a, b) => logits[b] - logits[a] || a - b);
}

/** The first `k` ids of the ranking (all, where k exceeds their number), in one pass over the logits. */
export function topIds(logits: Float32Array, k: number): number[] {
  // Collects what beats the k-th best so far and drops the excess when it has piled up.
  const limit = 2 * k + 64;
  let ids: number[] = [];
  let floor = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    // One that equals the floor has a higher id than the k that are kept, so it loses the tie.
    if (ids.length >= k && logits[id] <= floor) continue;
    ids.push(id);
    if (ids.length === limit) {
      ids = sortByLogit(ids, logits).slice(0, k);
      floor = logits[ids[k - 1]];
    }
  }
  return sortByLogit(ids, logits).slice(0, k);
}
