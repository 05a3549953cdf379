// An inspected frame with its defect boxes. Boxes are in pixels of the source frame while the image
// may be a smaller copy, so everything is placed in shares of the frame.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { visionImageQuery } from "../../api/queries";
import type { Defect, VisionResult } from "../../api/types";
import { words } from "../../format";

export interface Placed {
  left_pct: number;
  top_pct: number;
  width_pct: number;
  height_pct: number;
}

/** Where a box lies, in percent of the frame; clipped to it. */
export function place(defect: Defect, width_px: number, height_px: number): Placed {
  const share = (value: number, whole: number) => Math.min(100, Math.max(0, (value / whole) * 100));
  const left_pct = share(defect.x0, width_px);
  const top_pct = share(defect.y0, height_px);
  return {
    left_pct,
    top_pct,
    width_pct: share(defect.x1, width_px) - left_pct,
    height_pct: share(defect.y1, height_px) - top_pct,
  };
}

/** The image needs the bearer token, so it is fetched and shown as a blob. */
function useImageUrl(id: string, has_image: boolean): { url: string | null; isMissing: boolean } {
  const image = useQuery({ ...visionImageQuery(id), enabled: has_image });
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    if (image.data === undefined) return undefined;
    const made = URL.createObjectURL(image.data);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [image.data]);
  return { url, isMissing: !has_image || image.error !== null };
}

export function defectWords(result: VisionResult): string {
  if (result.defects.length === 0) return result.reason ?? "no defect";
  const counts = new Map<string, number>();
  for (const defect of result.defects) counts.set(defect.class, (counts.get(defect.class) ?? 0) + 1);
  return [...counts].map(([name, count]) => (count === 1 ? words(name) : `${words(name)} ×${count}`)).join(", ");
}

interface BoxedImageProps {
  result: VisionResult;
  hasBoxes: boolean;
  hasLabels?: boolean;
}

export function BoxedImage({ result, hasBoxes, hasLabels = true }: BoxedImageProps) {
  const { url, isMissing } = useImageUrl(result.id, result.has_image);
  const { width_px, height_px } = result;
  const ratio = width_px > 0 && height_px > 0 ? `${width_px} / ${height_px}` : "4 / 3";
  return (
    <div className="frame" style={{ aspectRatio: ratio }}>
      {url !== null && <img src={url} alt={`${result.camera}: ${defectWords(result)}`} />}
      {url === null && <p className="frame-note">{isMissing ? "No image kept" : "Loading image…"}</p>}
      {hasBoxes && url !== null && width_px > 0 && height_px > 0 && (
        <div className="boxes" aria-hidden="true">
          {result.defects.map((defect, index) => (
            <Box key={index} defect={defect} at={place(defect, width_px, height_px)} hasLabel={hasLabels} />
          ))}
        </div>
      )}
    </div>
  );
}

function Box({ defect, at, hasLabel }: { defect: Defect; at: Placed; hasLabel: boolean }) {
  const style = {
    left: `${at.left_pct}%`,
    top: `${at.top_pct}%`,
    width: `${at.width_pct}%`,
    height: `${at.height_pct}%`,
  };
  const sides = `${at.top_pct < 12 ? " below" : ""}${at.left_pct > 60 ? " from-right" : ""}`;
  return (
    <span className="box" style={style}>
      {hasLabel && (
        <span className={`plate${sides}`}>
          {words(defect.class)} {Math.round(defect.score * 100)}%
        </span>
      )}
    </span>
  );
}
