"""Train the six fusions of chapter 16 on the digits cut into three views, and write how each does with all of them and without one.

    python data/make_feature_fusion.py           # writes data/results/feature_fusion.json; some minutes on one core
    python data/make_feature_fusion.py --three   # only the part on three_views, into the same file

Settings were chosen on validation data: a fifth of the training data, never the test data. Both tables are in the file.
"""
import argparse, json, platform, sys, time
from pathlib import Path

import numpy as np
import sklearn
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from mmcourse.feature_fusion import FUSIONS, TensorFusion, concat_inputs, digit_views, load_three, train_concat_model, train_digits, train_three, view_inputs, without_each
from mmcourse.training import accuracy, count_parameters

FILE, P, EPOCHS = ROOT/'data'/'results'/'feature_fusion.json', .5, 80

def measure(fusion: type, seeds, part: str, p: float = P) -> dict: # one list over seeds for each condition
    "Accuracy with all views and without each, seed by seed."
    start, scores = time.process_time(), []
    for seed in seeds:
        train, held = digit_views(seed, part)
        model = train_digits(train, fusion, p=p, epochs=EPOCHS, seed=seed)
        scores.append(without_each(model, held))
    return {'accuracy': {str(gone): [round(s[gone], 6) for s in scores] for gone in scores[0]}, 'parameters': count_parameters(model),
            'seconds': round((time.process_time()-start)/len(scores), 1)}

def vectors(seeds) -> dict: # a reference: a support vector machine for each set of views, trained on that set alone
    from sklearn.svm import SVC
    scores = []
    for seed in seeds:
        ((x, mask), y), ((x_test, _), y_test) = digit_views(seed)
        join = lambda v, gone: torch.cat([t for m, t in v.items() if m != gone], 1).numpy()
        scores.append({gone: SVC(C=10, gamma=9.6/join(x, gone).shape[1]).fit(join(x, gone), y).score(join(x_test, gone), y_test) for gone in (None, *mask)})
    return {'accuracy': {str(gone): [round(s[gone], 6) for s in scores] for gone in scores[0]}}

def three() -> dict: # network -> 'valid', 'test': accuracies of three seeds; 'parameters', 'seconds'
    "The fusions on `three_views`, and the article's Keras model beside them."
    data, out = load_three(), {}
    def ours(fusion, seed):
        model = train_three(*data['train'], fusion, seed=seed)
        return count_parameters(model), [accuracy(model, (view_inputs(data[s][0]), data[s][1])) for s in ('valid', 'test')]
    def keras(seed):
        model = train_concat_model(*data['train'], seed=seed)
        right = lambda x, y: float((model.predict(concat_inputs(x), batch_size=500, verbose=0).argmax(1) == y.numpy()).mean())
        return model.count_params(), [right(*data[s]) for s in ('valid', 'test')]
    runs = {name: (lambda seed, fusion=fusion: ours(fusion, seed)) for name, fusion in FUSIONS.items()} | {'the article’s, in Keras': keras}
    for name, run in runs.items():
        start = time.process_time()
        found = [run(seed) for seed in range(3)]
        valid, test = zip(*[[round(a, 6) for a in scores] for _, scores in found])
        out[name] = {'parameters': found[0][0], 'valid': valid, 'test': test, 'seconds': round((time.process_time()-start)/3, 1)}
        print(name, out[name], flush=True)
    return out

def digits() -> dict: # 'valid', 'test': network -> as `measure` gives
    start, out = time.process_time(), {'valid': {}, 'test': {}}
    def keep(part, name, result):
        out[part][name] = result
        a = result['accuracy']
        print(f'{part:5} {name:28} all {100*np.mean(a["None"]):.2f}, one missing {100*np.mean([v for k, v in a.items() if k != "None"]):.2f}, {time.process_time()-start:.0f} s', flush=True)
    keep('test', 'tensor', measure(TensorFusion, range(5), 'test'))
    for name, fusion in FUSIONS.items(): keep('valid', name, measure(fusion, range(3), 'valid'))
    for name, fusion in FUSIONS.items():
        if name != 'tensor': keep('test', name, measure(fusion, range(5), 'test'))
    for name in ('concat', 'tensor'): keep('test', f'{name}, trained plainly', measure(FUSIONS[name], range(5), 'test', p=0.))
    keep('test', 'a machine for each set', vectors(range(5)))
    return out | {'digits': {'p': P, 'epochs': EPOCHS, 'seconds': round(time.process_time()-start)}}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--three', action='store_true', help='only the part on three_views')
    torch.set_num_threads(1)
    old = json.loads(FILE.read_text()) if parser.parse_args().three else digits()
    about = {'command': 'python data/make_feature_fusion.py', 'python': platform.python_version(), 'torch': torch.__version__, 'numpy': np.__version__, 'sklearn': sklearn.__version__}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(old | {'three_views': three(), 'about': about}, indent=1) + '\n')

if __name__ == '__main__': main()
