// Attacks on a folder with an adapter, for folders.mjs.
import { join } from "node:path";
import { flip, json, manifest, readShard, tensor } from "./folder-damage.mjs";

const LORA = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/** [name, what the refusal must say, attack on a valid folder with an adapter, when it must be refused] */
export const ADAPTER_ATTACKS = [
  [
    "adapter-not-named",
    /lora_A\.weight" is stored but no tensor of the model/,
    manifest(({ adapter: _, ...m }) => m),
  ],
  [
    "adapter-without-configuration",
    /adapter needs adapter_config\.json, which the manifest does not list/,
    manifest(({ files }) => {
      delete files["adapter_config.json"];
    }),
  ],
  ["adapter-of-5-bits", /adapter\.bits is 5/, manifest((m) => ({ ...m, adapter: { bits: 5 } }))],
  [
    "adapter-of-other-bits",
    /differ in the bits of the adapter/,
    manifest((m) => ({ ...m, adapter: { bits: 8 } })),
  ],
  [
    "adapter-of-rank-2-40",
    /adapter_config\.json: r must be a whole number from 1 to 4096/,
    json("adapter_config.json", { r: 2 ** 40 }),
  ],
  [
    "adapter-of-another-rank",
    /lora_A\.weight" has the shape \[2, 16\] where model and rank ask for \[4, 16\]/,
    json("adapter_config.json", { r: 4 }),
  ],
  ["adapter-of-another-kind", /option "use_dora"/, json("adapter_config.json", { use_dora: true })],
  [
    "adapter-of-nan",
    /lora_A\.weight" holds a value that is not finite/,
    tensor(LORA, (bytes) => bytes.writeUInt16LE(0x7e00, 4)),
    "read",
  ],
  [
    "adapter-with-a-flipped-byte",
    /lora_A\.weight" in adapter_model\.safetensors does not match its SHA-256/,
    async (f) => {
      const path = join(f, "adapter_model.safetensors");
      const { header, dataOffset } = await readShard(path);
      await flip(path, dataOffset + header[LORA].data_offsets[0] + 5);
    },
    "read",
  ],
];
