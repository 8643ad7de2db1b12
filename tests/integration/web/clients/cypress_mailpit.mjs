// Drives the commands of cypress-mailpit without Cypress: node cypress_mailpit.mjs PACKAGE URL
// [NAME PASSWORD]. Of Cypress there is what the commands use; its chains are promises here.
import { readFileSync } from "node:fs";
import { answerCalls } from "./calls.mjs";

const [folder, baseUrl, name, password] = process.argv.slice(2);

globalThis.Cypress = {
  expose: (key) => ({ MAILPIT_URL: baseUrl })[key],
  config: (key) => ({ defaultCommandTimeout: 4000 })[key],
};

globalThis.cy = {
  env: async () => ({ MAILPIT_USERNAME: name, MAILPIT_PASSWORD: password }),
  wrap: async (value) => value,
  wait: (ms) => new Promise((done) => setTimeout(done, ms)),
  // as cy.request: an object goes as JSON, JSON comes as an object, other than 2xx is an error
  request: async ({ method, url, qs, body, auth }) => {
    const target = new URL(url);
    for (const [key, value] of Object.entries(qs ?? {})) target.searchParams.set(key, value);
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (auth) headers.authorization = `Basic ${btoa(`${auth.user}:${auth.pass}`)}`;
    const response = await fetch(target, { method, headers, body: JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${response.status} ${text}`);
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    return { status: response.status, body: isJson ? JSON.parse(text) : text };
  },
};

// the package has no "type": by a data address its module is taken for one
const source = readFileSync(`${folder}/dist/src/MailpitCommands.js`, "utf8");
const address = `data:text/javascript,${encodeURIComponent(source)}`;
const { MailpitCommands } = await import(address);
await answerCalls(new MailpitCommands());
