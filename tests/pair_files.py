"""Writes tiny flow and stereo data sets in the layouts of the real ones."""

import cv2
import numpy as np

from perceiver_jax import files


def image(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def put(path, array):
    """An image file, grey for `[H, W]`; RGB for `[H, W, 3]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array[..., ::-1] if array.ndim == 3 else array
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(array))[1].tobytes())


def mask(rng, height, width):
    return np.where(rng.random((height, width)) < 0.3, 255, 0).astype(np.uint8)


def flow(rng, height, width):
    """Steps of 1/64, which KITTI's files hold exactly."""
    return rng.integers(-640, 640, (height, width, 2)).astype(np.float32) / 64


def disparity(rng, height, width):
    return rng.integers(1, 40 * 4, (height, width, 1)).astype(np.float32) / 4


def write_sintel(root, *, frames=4, size=(20, 28), seed=0):
    """Flow (clean, final) and stereo in one folder; returns what was written by path."""
    rng, written = np.random.default_rng(seed), {}
    for scene in ("alley_1", "cave_2"):
        for i in range(1, frames + 1):
            name = f"{scene}/frame_{i:04}"
            for look in (
                "clean",
                "final",
                "clean_left",
                "clean_right",
                "final_left",
                "final_right",
            ):
                written[look, name] = image(rng, *size)
                put(root / "training" / look / f"{name}.png", written[look, name])
            for kind in ("occlusions", "invalid", "outofframe"):
                written[kind, name] = mask(rng, *size)
                put(root / "training" / kind / f"{name}.png", written[kind, name])
            written["disparities", name] = disparity(rng, *size)
            red, rest = np.divmod(written["disparities", name][..., 0], 4)
            stored = np.stack([red, rest * 64, np.zeros(size)], axis=-1).astype(np.uint8)
            put(root / "training" / "disparities" / f"{name}.png", stored)
            if i < frames:
                written["flow", name] = flow(rng, *size)
                (root / "training" / "flow" / scene).mkdir(parents=True, exist_ok=True)
                files.write_flo(root / "training" / "flow" / f"{name}.flo", written["flow", name])
    return written


KITTI_FOLDERS = {
    2012: ("colored_0", "colored_1", "disp_occ", "disp_noc"),
    2015: ("image_2", "image_3", "disp_occ_0", "disp_noc_0"),
}


def write_kitti(root, *, year=2015, sizes=((20, 28), (19, 30), (20, 30)), seed=0):
    """Flow and stereo; returns the truth: (flow, disparity, valid, visible) of each pair."""
    rng, written = np.random.default_rng(seed), []
    left, right, all_pixels, visible_pixels = KITTI_FOLDERS[year]
    for i, size in enumerate(sizes):
        for folder, time in ((left, 10), (left, 11), (right, 10)):
            put(root / "training" / folder / f"{i:06}_{time}.png", image(rng, *size))
        flows, disparities = flow(rng, *size), disparity(rng, *size)
        valid = mask(rng, *size) > 0
        visible = valid & (mask(rng, *size) > 0)
        written.append((flows, disparities, valid, visible))
        for kind, known in (("occ", valid), ("noc", visible)):
            path = root / "training" / f"flow_{kind}" / f"{i:06}_10.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_kitti_flow(path, flows, known)
        for folder, known in ((all_pixels, valid), (visible_pixels, visible)):
            path = root / "training" / folder / f"{i:06}_10.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_kitti_disparity(path, disparities, known)
    return written


def write_flying_chairs(root, *, count=3, size=(20, 28), seed=0):
    """The second one is for validation; returns the flows."""
    rng, flows = np.random.default_rng(seed), []
    for i in range(1, count + 1):
        for frame in (1, 2):
            put(root / "data" / f"{i:05}_img{frame}.ppm", image(rng, *size))
        flows.append(flow(rng, *size))
        files.write_flo(root / "data" / f"{i:05}_flow.flo", flows[-1])
    kinds = ["2" if i == 1 else "1" for i in range(count)]
    (root / "FlyingChairs_train_val.txt").write_text("\n".join(kinds) + "\n")
    return flows


def write_autoflow(root, *, count=4, size=(20, 28), seed=0):
    """One pair in each of the four archives; returns the flows."""
    rng, flows = np.random.default_rng(seed), []
    for i in range(1, count + 1):
        folder = root / f"static_40k_png_{i}_of_4" / f"table_{i}"
        for frame in (0, 1):
            put(folder / f"im{frame}.png", image(rng, *size))
        flows.append(flow(rng, *size))
        files.write_flo(folder / "forward.flo", flows[-1])
    return flows


def write_scene_flow(root, *, count=2, size=(20, 28), seed=0):
    """FlyingThings3D, disparity and flow; returns both of the training scene."""
    rng, written = np.random.default_rng(seed), []
    for split in ("TRAIN", "TEST"):
        for i in range(6, 6 + count):
            place = f"{split}/A/0000"
            for look in ("frames_cleanpass", "frames_finalpass"):
                for side in ("left", "right"):
                    put(root / look / place / side / f"{i:04}.png", image(rng, *size))
            truth = disparity(rng, *size), flow(rng, *size)
            path = root / "disparity" / place / "left" / f"{i:04}.pfm"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_pfm(path, truth[0])
            folder = root / "optical_flow" / place / "into_future" / "left"
            folder.mkdir(parents=True, exist_ok=True)
            three = np.concatenate([truth[1], np.zeros((*size, 1))], axis=-1)
            files.write_pfm(folder / f"OpticalFlowIntoFuture_{i:04}_L.pfm", three)
            written += [truth] if split == "TRAIN" else []
    return written


def write_middlebury_2014(root, *, folder="real", size=(20, 28), seed=0):
    """A scene of Middlebury 2014; returns its disparity, of which one pixel is not known."""
    rng, scene = np.random.default_rng(seed), root / folder / "scene"
    for name in ("im0", "im1"):
        put(scene / f"{name}.png", image(rng, *size))
    truth = disparity(rng, *size)
    truth[2, 3] = np.inf
    files.write_pfm(scene / "disp0.pfm", truth)
    return truth


def write_masked(root, *, folder="trainingQ", sizes=((20, 28), (18, 31)), seed=0):
    """Middlebury's third evaluation and ETH3D; returns (disparity, mask) of each scene."""
    rng, written = np.random.default_rng(seed), []
    for i, size in enumerate(sizes):
        scene = root / folder / f"scene_{i}"
        for name in ("im0", "im1"):
            put(scene / f"{name}.png", image(rng, *size))
        truth = disparity(rng, *size)
        truth[2, 3] = np.inf
        kinds = rng.choice(np.array([0, 128, 255], np.uint8), size)
        kinds[2, 3] = 0
        files.write_pfm(scene / "disp0GT.pfm", truth)
        put(scene / "mask0nocc.png", kinds)
        written.append((truth, kinds))
    return written
