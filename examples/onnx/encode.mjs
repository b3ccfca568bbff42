// Encode images in a browser by a network that `lwfm export` wrote; onnxruntime-web does the work.
import * as ort from "onnxruntime-web/wasm";

/** Return the outputs (maps.0, positions.0, ...) for canvases of side x side pixels, cropped as the metadata say. */
export async function encode(model, canvases, side) {
  const session = await ort.InferenceSession.create(model);
  const pixels = new Uint8Array(canvases.length * side * side * 3);
  canvases.forEach((canvas, number) => {
    const rgba = canvas.getContext("2d").getImageData(0, 0, side, side).data;
    for (let i = 0, to = number * side * side * 3; i < rgba.length; i += 4, to += 3) {
      pixels.set(rgba.subarray(i, i + 3), to);
    }
  });
  return session.run({ pixels: new ort.Tensor("uint8", pixels, [canvases.length, side, side, 3]) });
}
