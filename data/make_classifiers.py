"""Train the image and audio classifiers of chapter 12, three seeds each, and write their weights.

    python data/make_classifiers.py        # writes data/classifiers.safetensors; a quarter of an hour on one core; goes on where it was stopped
    python data/make_classifiers.py --test # what the shipped weights say of the test data

Everything was chosen on validation data (data/classifiers.md). The notebook evaluates the file and trains a shorter run itself.
"""
import argparse, platform, sys, tempfile, time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.audio import augment_audio
from mmcourse.classifiers import WideVoiceNet, calibrate, clean_features, read_classifiers, train_audio_classifier, train_image_classifier
from mmcourse.image import augment_image
from mmcourse.training import write_tensors

FILE, SEEDS = Path(__file__).with_name('classifiers.safetensors'), 3
SMOOTH = partial(F.cross_entropy, label_smoothing=.1)
TRAIN = {'image': partial(train_image_classifier, epochs=16, augment=augment_image),
         'audio': partial(train_audio_classifier, epochs=40, net=WideVoiceNet, augment=augment_audio, loss=SMOOTH)}

def right(model, data): return float((model.predict(data[0]) == data[1]).mean())

def train(folder: Path):
    "Train `SEEDS` networks a modality, say how each does on validation data, write all of them."
    tensors, about, epoch = {}, dict(seeds=SEEDS, epochs={}, valid={}, seconds={}), {}
    for m, make in TRAIN.items():
        data, about['valid'][m], start = clean_features(m), [], time.process_time()
        for seed in range(SEEDS):
            say = lambda h: print(f'{m} {seed}: epoch {len(h)}, loss {h.train_loss[-1]:.3f}, {time.process_time()-start:.0f} s', flush=True)
            model = make(*data['train'], seed=seed, on_epoch=say, checkpoint=folder/f'{m}-{seed}.safetensors')
            calibrate(model, *data['valid'])
            about['valid'][m].append(right(model, data['valid']))
            print(f'{m} {seed}: valid {about["valid"][m][-1]:.3f}, temperature {model.temperature:.2f}', flush=True)
            tensors |= {f'{m}.{seed}.{k}': v.half() if v.ndim else v for k, v in model.state_dict().items()} # half the bytes; the accuracies stay
        about['epochs'][m], about['seconds'][m] = make.keywords['epochs'], round(time.process_time()-start)
    about |= dict(command='python data/make_classifiers.py', python=platform.python_version(), torch=torch.__version__, numpy=np.__version__)
    write_tensors(FILE, tensors, about)
    print(about)

def test():
    "Accuracy of the shipped weights on validation and test data."
    for m in TRAIN:
        models, data = read_classifiers(FILE, m), clean_features(m)
        for split in ('valid', 'test'):
            scores = [right(model, data[split]) for model in models]
            print(m, split, np.round(scores, 4), f'mean {np.mean(scores):.4f}')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--test', action='store_true', help='evaluate the shipped weights instead of training')
    parser.add_argument('--folder', type=Path, default=Path(tempfile.gettempdir())/'mmcourse-make-classifiers', help='where unfinished trainings are kept')
    torch.set_num_threads(1)
    args = parser.parse_args()
    test() if args.test else train(args.folder)
