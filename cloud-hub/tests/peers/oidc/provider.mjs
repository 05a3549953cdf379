// A certified OpenID provider for the hub's tests: any login name that the accounts name, any password.
// usage: node provider.mjs REDIRECT_URI ACCOUNTS_JSON     prints its issuer once it listens; ends with its standard input
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// Installed beside a copy of package.json in a cache, not beside this file.
const require = createRequire(pathToFileURL(`${process.env.FOODFLOW_PEER_OIDC}/package.json`));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);

// Standard output is for the issuer alone; nobody reads it afterwards.
console.info = console.warn = console.error;

const [redirectUri, accountsText] = process.argv.slice(2);
const accounts = JSON.parse(accountsText);
const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const client = (client_id, more) => ({
  client_id,
  redirect_uris: [redirectUri],
  post_logout_redirect_uris: [new URL('/', redirectUri).href],
  grant_types: ['authorization_code'],
  response_types: ['code'],
  ...more,
});

const provider = new Provider(issuer, {
  clients: [
    client('foodflow', { client_secret: 'secret of a test client' }),
    client('foodflow-app', { token_endpoint_auth_method: 'none', application_type: 'native' }),
  ],
  scopes: ['openid', 'email', 'profile', 'groups'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
  findAccount: (_, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
  cookies: { keys: ['signs the cookies of a test'] },
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
});
server.on('request', provider.callback());
console.log(issuer);
// The test that started it is gone, however it ended.
process.stdin.on('end', () => process.exit(0)).resume();
