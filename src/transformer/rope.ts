/**
 * Rotary position embedding: the angles of every position as tables of cosines and sines, with the "linear"
 * and "llama3" scalings. Angles are computed in float64: at position 100,000 a float32 angle is off by 0.004.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Buffer } from "../compute/backend.js";
import type { BufferGroup } from "./buffers.js";

type RopeConfig = Pick<ModelConfig, "headSize" | "ropeTheta" | "ropeScaling">;

/** Tables on a backend, [positions, headSize / 2] each. */
export interface Rope {
  readonly cosines: Buffer;
  readonly sines: Buffer;
}

/** Radians by which each of the headSize / 2 pairs turns from one position to the next. */
export function rotaryFrequencies(config: RopeConfig): Float64Array {
  const { headSize, ropeTheta, ropeScaling } = config;
  const frequencies = Float64Array.from(
    { length: headSize / 2 },
    (_, i) => ropeTheta ** ((-2 * i) / headSize),
  );
  if (ropeScaling?.type === "linear") return frequencies.map((f) => f / ropeScaling.factor);
  if (ropeScaling?.type !== "llama3") return frequencies;
  // Llama 3.1: pairs that turn more than highFrequencyFactor times within the original context stay, those
  // that turn less than lowFrequencyFactor times are slowed by `factor`, and between the two it is blended.
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength } = ropeScaling;
  return frequencies.map((f) => {
    const turns = (originalContextLength * f) / (2 * Math.PI);
    if (turns > high) return f;
    if (turns < low) return f / factor;
    const keep = (turns - low) / (high - low);
    return keep * f + ((1 - keep) * f) / factor;
  });
}

/** Cosines and sines of positions 0 .. positions - 1, [positions, headSize / 2], rounded to f32 once. */
export function rotaryTables(
  config: RopeConfig,
  positions: number,
): { cosines: Float32Array; sines: Float32Array } {
  const frequencies = rotaryFrequencies(config);
  const half = frequencies.length;
  const cosines = new Float32Array(positions * half);
  const sines = new Float32Array(positions * half);
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      cosines[p * half + i] = Math.cos(p * frequencies[i]);
      sines[p * half + i] = Math.sin(p * frequencies[i]);
    }
  return { cosines, sines };
}

/** The tables uploaded into `group`. */
export function uploadRope(group: BufferGroup, config: RopeConfig, positions: number): Rope {
  const { cosines, sines } = rotaryTables(config, positions);
  return { cosines: group.upload(cosines), sines: group.upload(sines) };
}
