// The colours a canvas may use, read from the page's tokens so that light and dark stay one list.

export interface Ink {
  text: string;
  grid: string;
  trend: string;
  limit: string;
  panel: string;
}

export function inkOf(element: Element): Ink {
  const style = getComputedStyle(element);
  const token = (name: string): string => style.getPropertyValue(name).trim() || "gray";
  return {
    text: token("--ink-2"),
    grid: token("--line"),
    trend: token("--trend"),
    limit: token("--limit"),
    panel: token("--panel"),
  };
}

/** Calls back when the colour scheme changes; canvases must be painted again then. */
export function onThemeChange(listener: () => void): () => void {
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", listener);
  return () => media.removeEventListener("change", listener);
}
