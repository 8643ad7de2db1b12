// Drives mailpit-api: node mailpit_api.mjs PACKAGE URL [NAME PASSWORD]
import { pathToFileURL } from "node:url";
import { answerCalls } from "./calls.mjs";

const [folder, url, username, password] = process.argv.slice(2);
const { MailpitClient } = await import(pathToFileURL(`${folder}/dist/index.mjs`).href);
await answerCalls(new MailpitClient(url, username ? { auth: { username, password } } : {}));
