// Names the browser tab after the page, so that several plants' tabs can be told apart.
import { useEffect } from "react";

export function useTitle(page: string): void {
  useEffect(() => {
    document.title = `${page} · FoodFlow OS`;
  }, [page]);
}
