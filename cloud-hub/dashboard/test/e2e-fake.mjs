// The same browser checks over the fake hub, for working on the pages without a hub.
import { run, targetFrom } from "./e2e.mjs";
import { LOGIN, startFakeHub } from "./fake-hub.mjs";

const hub = await startFakeHub();
const env = { ...process.env, HUB_URL: hub.url, TENANT: LOGIN.tenant, EMAIL: LOGIN.email, PASSWORD: LOGIN.password,
  EXPECT: "lines,ccps,holds,defects,record,integrators" };
const failed = await run(targetFrom(env));
hub.close();
process.exit(failed === 0 ? 0 : 1);
