// Single-key shortcuts: on unless the user switched them off on this device (WCAG 2.1.4), and never
// while somebody is typing.
import { useEffect, useRef, useSyncExternalStore } from "react";

const KEY = "foodflow.shortcuts";
const listeners = new Set<() => void>();

export function areShortcutsOn(): boolean {
  return localStorage.getItem(KEY) !== "off";
}

export function setShortcuts(is_on: boolean): void {
  localStorage.setItem(KEY, is_on ? "on" : "off");
  for (const listener of listeners) listener();
}

export function useShortcutsOn(): boolean {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, areShortcutsOn);
}

export function useShortcut(key: string, act: () => void): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const is_typing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
      const is_combined = event.ctrlKey || event.metaKey || event.altKey;
      if (event.key === key && !is_typing && !is_combined && areShortcutsOn()) latest.current();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [key]);
}
