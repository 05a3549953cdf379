// All lines of the plant, as on the Now page.
import { useTitle } from "../../components/use_title";
import { LineStrip } from "./line_strip";

export function LinesPage() {
  useTitle("Lines");
  return (
    <>
      <h1>Lines</h1>
      <LineStrip />
    </>
  );
}
