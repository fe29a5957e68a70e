/** A program for the kill test: writes the tiny folder, going on where the last run was stopped. */
import { writeTinyFolder } from "./tiny-folder.test.util.js";

const [, , out, shardBytes] = process.argv;
process.stdout.write("ready\n");
await writeTinyFolder({ out, resume: true, shardBytes: Number(shardBytes) });
