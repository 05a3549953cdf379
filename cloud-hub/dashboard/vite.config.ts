// How the dashboard is built, served while developing, and unit-tested.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` proxies the API to a running hub (or test/fake-hub.mjs).
const hub = process.env["HUB_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    // The hub serves /assets/* as immutable; nothing is inlined so that the CSP stays 'self'.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 400,
  },
  worker: { format: "es" },
  server: { port: 5173, proxy: { "/api": { target: hub, changeOrigin: false } } },
  test: { environment: "happy-dom", include: ["src/**/*.test.{ts,tsx}"], restoreMocks: true },
});
