// The five words that lead to every page: four links and "More", which unfolds the rest. On a phone the four are a
// bar at the thumb and "More" stays in the header.
import { Link, useLocation } from "@tanstack/react-router";
import { useEffect, useId, useRef, useState, type FocusEvent, type KeyboardEvent } from "react";
import { currentMark, MAIN, MORE, QUALITY, shownOf, type NavPage } from "./nav";
import { may, usePlant, type Plant } from "./plant";

function allowed(pages: readonly NavPage[], plant: Plant): NavPage[] {
  return pages.filter((page) => page.needs === undefined || may(plant.me.can, page.needs));
}

function Words({ pages, className }: { pages: readonly NavPage[]; className: string }) {
  const plant = usePlant();
  const { pathname } = useLocation();
  return (
    <ul className={className}>
      {allowed(pages, plant).map((page) => (
        <li key={page.word}>
          {/* The router would call a line's own page the page of all lines. */}
          <Link to={page.to} params={plant.params} activeProps={{ "aria-current": currentMark(page, pathname) }}
            inactiveProps={{ "aria-current": currentMark(page, pathname) }}>
            {page.word}
          </Link>
        </li>
      ))}
    </ul>
  );
}

export function Navigation() {
  return (
    <nav className="pages" aria-label="Pages">
      <Words pages={MAIN} className="main-pages" />
      <More />
    </nav>
  );
}

/** A disclosure and no menu of an application: Tab walks its links, Escape folds it and gives the focus back. */
function More() {
  const plant = usePlant();
  const { pathname } = useLocation();
  const [is_open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel_id = useId();
  useEffect(() => setOpen(false), [pathname]);
  useEffect(() => {
    if (!is_open) return undefined;
    const onPress = (event: PointerEvent): void => {
      if (!(event.target instanceof Node && box.current?.contains(event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", onPress);
    return () => document.removeEventListener("pointerdown", onPress);
  }, [is_open]);
  const onKey = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || !is_open) return;
    setOpen(false);
    button.current?.focus();
  };
  const onBlur = (event: FocusEvent): void => {
    // Without a next element the window itself lost the focus, and comes back to where it was.
    if (event.relatedTarget instanceof Node && !box.current?.contains(event.relatedTarget)) setOpen(false);
  };
  const shown = shownOf(allowed(MORE, plant), pathname);
  return (
    <div className="more" ref={box} onKeyDown={onKey} onBlur={onBlur}>
      <button ref={button} type="button" aria-expanded={is_open} aria-controls={panel_id}
        className={shown === undefined ? undefined : "current"} onClick={() => setOpen(!is_open)}>
        More{shown !== undefined && <span className="more-shown">: {shown.word}</span>}
      </button>
      <div id={panel_id} hidden={!is_open}>
        <Words pages={MORE} className="more-panel" />
      </div>
    </div>
  );
}

/** The pages of quality, at the head of each of them. */
export function QualityTabs() {
  return (
    <nav aria-label="Quality">
      <Words pages={QUALITY} className="tabs" />
    </nav>
  );
}
