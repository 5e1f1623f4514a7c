// Colours and shapes of classes: those of cbir_tf/plots/style.py, so that every picture agrees.

export const PALETTE = [
  "#3344cc",
  "#ffbb00",
  "#991100",
  "#66ddaa",
  "#aa77aa",
  "#116644",
  "#ff6666",
  "#5599ff",
  "#aa6600",
  "#990066",
];
export const UNLABELLED = "#c9ced6";

function polygon(corners, turn = 0, inner = 1) {
  const number = inner < 1 ? 2 * corners : corners;
  const points = Array.from({ length: number }, (_, place) => {
    const angle = turn - Math.PI / 2 + (2 * Math.PI * place) / number;
    const radius = place % 2 && inner < 1 ? inner : 1;
    return `${(radius * Math.cos(angle)).toFixed(3)},${(radius * Math.sin(angle)).toFixed(3)}`;
  });
  return `M${points.join("L")}Z`;
}

const PLUS = "M-.3,-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z";
const CROSS =
  "M-.5,-.92L0,-.42L.5,-.92L.92,-.5L.42,0L.92,.5L.5,.92L0,.42L-.5,.92L-.92,.5L-.42,0L-.92,-.5Z";

// From the eleventh class on the colours come again with another shape.
const SHAPES = [
  "M1,0A1,1 0 1 1 -1,0A1,1 0 1 1 1,0Z",
  polygon(3),
  polygon(4, Math.PI / 4),
  polygon(4),
  polygon(3, Math.PI),
  CROSS,
  PLUS,
  polygon(5),
  polygon(5, 0, 0.45),
  "M0,-1L.6,0L0,1L-.6,0Z",
];

/** Colour and path of a class by its number; -1: unlabelled. */
export function appearance(number) {
  if (number < 0) return { colour: UNLABELLED, path: SHAPES[0] };
  const shape = Math.floor(number / PALETTE.length) % SHAPES.length;
  return { colour: PALETTE[number % PALETTE.length], path: SHAPES[shape] };
}

/** Appearance by label, for a list of {name, number} of /info. */
export function appearances(labels) {
  const found = new Map(labels.map(({ name, number }) => [name, appearance(number)]));
  return (label) => found.get(label) ?? appearance(-1);
}
