# ruff: noqa: E501 (a message is one string, so that it can be searched for)
"""Grids with one slip each, and the sentence that tells it."""

FAKES = "tests.bench.grid_fakes"


def with_methods(item: str) -> str:
    return f"methods:\n  - {item}\ndatasets: [letters]\n"


def with_datasets(item: str) -> str:
    return f"methods: [plain]\ndatasets:\n  - {item}\n"


def with_line(line: str) -> str:
    return f"methods: [plain]\ndatasets: [letters]\n{line}\n"


SLIPS = [
    # methods
    (with_methods("fkae"), "grid.yaml:2: methods[0]: unknown method 'fkae'. Did you mean 'fake'? List them with: bench ls methods"),
    (with_methods("fake: {taw: 1}"), "grid.yaml:2: methods[0].fake: method 'fake' has no hyper-parameter 'taw'. Did you mean 'tau'? "
     "It has: tau, kappa, depth, rec, widths, bias, variant, label"),
    (with_methods("plain: {taw: 1}"), "grid.yaml:2: methods[0].plain: method 'plain' has no hyper-parameter 'taw'. It has no hyper-parameters"),
    (with_methods("fake: {variant: no_rek}"), "grid.yaml:2: methods[0].fake.variant: method 'fake' has no variant 'no_rek'. "
     "Did you mean 'no_rec'? It has: default, no_rec, sharp"),
    (with_methods("fake: {variant: [sharp, sharp]}"), "grid.yaml:2: methods[0].fake.variant[1]: 'sharp' is given twice"),
    (with_methods("fake: {variant: []}"), "grid.yaml:2: methods[0].fake.variant: an empty list; give at least one value"),
    (with_methods("fake: {tau: 0}"), "grid.yaml:2: methods[0].fake.tau: expected a number above 0, got 0"),
    (with_methods("fake: {tau: [1, 11]}"), "grid.yaml:2: methods[0].fake.tau[1]: expected a number of at most 10, got 11"),
    (with_methods("fake: {tau: '0.5'}"), "grid.yaml:2: methods[0].fake.tau: expected a number, got '0.5'"),
    (with_methods("fake: {tau: true}"), "grid.yaml:2: methods[0].fake.tau: expected a number, got true"),
    (with_methods("fake: {tau: .nan}"), "grid.yaml:2: methods[0].fake.tau: expected finite numbers, got .nan"),
    (with_methods("fake: {tau: [1, -.inf]}"), "grid.yaml:2: methods[0].fake.tau[1]: expected finite numbers, got -.inf"),
    (with_methods("fake: {tau: }"), "grid.yaml:2: methods[0].fake.tau: expected a number, got nothing"),
    (with_methods("fake: {tau: []}"), "grid.yaml:2: methods[0].fake.tau: an empty list; give at least one value"),
    (with_methods("fake: {tau: [1, 1.0, 2]}"), "grid.yaml:2: methods[0].fake.tau[1]: 1.0 is given twice"),
    (with_methods("fake: {tau: {low: 1}}"), "grid.yaml:2: methods[0].fake.tau: expected a number, got a mapping"),
    (with_methods("fake: {depth: 1.5}"), "grid.yaml:2: methods[0].fake.depth: expected a whole number, got 1.5"),
    (with_methods("fake: {bias: 1}"), "grid.yaml:2: methods[0].fake.bias: expected true or false, got 1"),
    (with_methods("fake: {rec: cosine}"), "grid.yaml:2: methods[0].fake.rec: expected one of cos, cos2, none, got 'cosine'. Did you mean 'cos'?"),
    (with_methods("fake: {rec: l1}"), "grid.yaml:2: methods[0].fake.rec: expected one of cos, cos2, none, got 'l1'"),
    (with_methods("fake: {widths: 8}"), "grid.yaml:2: methods[0].fake.widths: expected a list, got 8"),
    (with_methods("fake: {widths: [8, x]}"), "grid.yaml:2: methods[0].fake.widths[1]: expected a whole number, got 'x'"),
    (with_methods("fake: {rec: [cos, none], depth: 5}"), "grid.yaml:2: methods[0].fake: without rec the depth is at most 4 (with rec: 'none')"),
    (with_methods("fake: {variant: no_rec, depth: 5}"), "grid.yaml:2: methods[0].fake: without rec the depth is at most 4"),
    (with_methods("fake: {label: a/b}"), "grid.yaml:2: methods[0].fake.label: 'a/b' is no label: use letters, digits and . _ + = , ( ) -, "
     "starting with a letter or digit"),
    (with_methods("fake: {label: ''}"), "grid.yaml:2: methods[0].fake.label: a label has 1 to 50 characters, got 0"),
    (with_methods("fake: {label: 3}"), "grid.yaml:2: methods[0].fake.label: expected text, got 3: put it in quotes"),
    (with_methods("fake: [1]"), "grid.yaml:2: methods[0].fake: expected a mapping with the options of 'fake', got a list"),
    (with_methods("3"), "grid.yaml:2: methods[0]: expected the name of a method, or a mapping of one name to its options, got 3"),
    (with_methods("fake:\n    tau: 1"), "grid.yaml:2: methods[0]: expected one method with its options indented below it, "
     "got the keys 'fake', 'tau' side by side"),
    (with_methods("no.where:Me"), "grid.yaml:2: methods[0]: method 'no.where:Me' cannot be imported: No module named 'no'."),
    (with_methods(f"{FAKES}:NoMethod"), f"grid.yaml:2: methods[0]: method '{FAKES}:NoMethod' is not a Method: it must subclass Method."),
    (with_methods("fake\n  - fake"), "grid.yaml:3: methods[1]: the method 'fake' is given twice, equal in every option (first as methods[0]): remove one"),
    (with_methods(f"fake\n  - {FAKES}:Fake"), "grid.yaml:3: methods[1]: the method 'Fake' is given twice, equal in every option "
     "(first as methods[0]): remove one"),
    (with_methods("fake: {variant: [default, sharp], tau: 0.1}"), "grid.yaml:2: methods[0]: the method 'fake[sharp]' is given twice, "
     "equal in every option (by its lists): remove one"),
    (with_methods("fake: {label: one, tau: 1}\n  - fake: {label: One, tau: 2}"), "grid.yaml:3: methods[1]: the label 'One' is taken by methods[0]: "
     "give one of them another 'label'"),
    (with_methods(f"fake: {{tau: [{','.join(map(str, range(1, 10)))}], kappa: [{','.join(map(str, range(2000)))}]}}"),
     "grid.yaml:2: methods[0]: the lists multiply to 18,000 configurations; a grid may ask for 10,000"),
    ("methods: []\ndatasets: [letters]", "grid.yaml:1: methods: an empty list; give at least one value"),
    ("methods:\ndatasets: [letters]", "grid.yaml:1: methods: nothing is given; write a value or remove the key"),
    ("datasets: [letters]", "grid.yaml: 'methods' is missing: list at least one; see bench ls methods"),
    # data sets
    (with_datasets("vieuws"), "grid.yaml:3: datasets[0]: unknown data set 'vieuws'. Did you mean 'views'? List them with: bench ls datasets"),
    (with_datasets("views: {noize: 1}"), "grid.yaml:3: datasets[0].views: data set 'views' has no option 'noize'. Did you mean 'noise'? "
     "It has: views, task, noise, uniqueness, comment, label"),
    (with_datasets("letters: {a: 1}"), "grid.yaml:3: datasets[0].letters: data set 'letters' has no option 'a'. It has no options"),
    (with_datasets("views: {uniqueness: x}"), "grid.yaml:3: datasets[0].views.uniqueness: expected a whole number or a list, got 'x'"),
    (with_datasets("views: {uniqueness: [1, x]}"), "grid.yaml:3: datasets[0].views.uniqueness[1]: expected a whole number, got 'x'"),
    (with_datasets("views: {uniqueness: [1, -1]}"), "grid.yaml:3: datasets[0].views.uniqueness[1]: expected a number of at least 0, got -1"),
    (with_datasets("views\n  - views: {noise: 0}"), "grid.yaml:4: datasets[1]: the data set 'views' is given twice, equal in every option "
     "(first as datasets[0]): remove one"),
    (with_datasets("absent"), "grid.yaml:3: datasets[0]: 'folder' is required"),
    # label ratios
    (with_line("label_ratios: 0"), "grid.yaml:3: label_ratios: a label ratio is above 0 and at most 1, got 0"),
    (with_line("label_ratios: [0.5, 1.5]"), "grid.yaml:3: label_ratios[1]: a label ratio is above 0 and at most 1, got 1.5; for 1.5 % write 0.015"),
    (with_line("label_ratios: [-1]"), "grid.yaml:3: label_ratios[0]: a label ratio is above 0 and at most 1, got -1"),
    (with_line("label_ratios: .nan"), "grid.yaml:3: label_ratios: a label ratio is above 0 and at most 1, got .nan"),
    (with_line("label_ratios: .inf"), "grid.yaml:3: label_ratios: a label ratio is above 0 and at most 1, got .inf"),
    (with_line("label_ratios: true"), "grid.yaml:3: label_ratios: expected a number above 0 and at most 1, got true"),
    (with_line("label_ratios: 5%"), "grid.yaml:3: label_ratios: expected a number above 0 and at most 1, got '5%'"),
    (with_line("label_ratios: [0.5, 0.50]"), "grid.yaml:3: label_ratios[1]: 0.5 is given twice"),
    (with_line("label_ratios: []"), "grid.yaml:3: label_ratios: an empty list; give at least one value"),
    # modalities
    (with_line("modalities: []"), "grid.yaml:3: modalities: an empty list; give at least one value"),
    (with_line("modalities: [all, []]"), "grid.yaml:3: modalities[1]: an empty list; name at least one modality"),
    (with_line("modalities: 3"), "grid.yaml:3: modalities: expected all, single, full or modality names such as 'text+audio', got 3"),
    (with_line("modalities: text+"), "grid.yaml:3: modalities: 'text+' lacks a modality name beside a '+'"),
    (with_line("modalities: text+text"), "grid.yaml:3: modalities: 'text+text' names a modality twice"),
    (with_line("modalities: text+all"), "grid.yaml:3: modalities: 'all' stands alone: it is no modality to be joined by '+'"),
    (with_line("modalities: [text+audio, audio+text]"), "grid.yaml:3: modalities[1]: 'audio+text' is given twice (as 'text+audio')"),
    (with_line("modalities: [single, single]"), "grid.yaml:3: modalities[1]: 'single' is given twice"),
    # seeds
    (with_line("seeds: 0"), "grid.yaml:3: seeds: expected a count from 1 to 100,000 or a list of seeds, got 0"),
    (with_line("seeds: -1"), "grid.yaml:3: seeds: expected a count from 1 to 100,000 or a list of seeds, got -1"),
    (with_line("seeds: 100000000"), "grid.yaml:3: seeds: expected a count from 1 to 100,000 or a list of seeds, got 100000000"),
    (with_line("seeds: true"), "grid.yaml:3: seeds: expected a count from 1 to 100,000 or a list of seeds, got true"),
    (with_line("seeds: 3.0"), "grid.yaml:3: seeds: expected a count from 1 to 100,000 or a list of seeds, got 3.0"),
    (with_line("seeds: []"), "grid.yaml:3: seeds: an empty list; give at least one value"),
    (with_line("seeds: [1, 2, 1]"), "grid.yaml:3: seeds[2]: seed 1 is given twice"),
    (with_line("seeds: [-1]"), "grid.yaml:3: seeds[0]: a seed is a whole number from 0 to 4294967295, got -1"),
    (with_line("seeds: [false]"), "grid.yaml:3: seeds[0]: a seed is a whole number from 0 to 4294967295, got false"),
    (with_line("seeds: [1.5]"), "grid.yaml:3: seeds[0]: a seed is a whole number from 0 to 4294967295, got 1.5"),
    # train
    (with_line("train: {epochs: 0}"), "grid.yaml:3: train.epochs: expected a number of at least 1, got 0"),
    (with_line("train: {epochs: [1, two]}"), "grid.yaml:3: train.epochs[1]: expected a whole number, got 'two'"),
    (with_line("train:\n  lr: 0"), "grid.yaml:4: train.lr: expected a number above 0, got 0"),
    (with_line("train:\n  epoch: 3"), "grid.yaml:4: train: 'train' has no setting 'epoch'. Did you mean 'epochs'? It has: epochs, batch_size, lr, "
     "weight_decay, clip_norm, schedule, label_sampler, precision, missing_rate, datasets"),
    (with_line("train: {schedule: plato}"), "grid.yaml:3: train.schedule: expected one of none, plateau, got 'plato'. Did you mean 'plateau'?"),
    (with_line("train: {datasets: {leters: {epochs: 3}}}"), "grid.yaml:3: train.datasets: no data set of this grid is called 'leters'. "
     "Did you mean 'letters'? It has: letters"),
    (with_line("train: {datasets: {letters: 3}}"), "grid.yaml:3: train.datasets.letters: expected a mapping of train settings, got 3"),
    (with_line("train: {datasets: {letters: {epochs: x}}}"), "grid.yaml:3: train.datasets.letters.epochs: expected a whole number, got 'x'"),
    (with_line("train: 3"), "grid.yaml:3: train: expected a mapping of train settings, got 3"),
    (with_line(f"train: {{epochs: [{','.join(map(str, range(1, 200)))}], batch_size: [{','.join(map(str, range(1, 200)))}]}}"),
     "grid.yaml:3: train: the lists multiply to 39,601 settings; a grid may ask for 10,000"),
    # the rest
    (with_line("name: a b"), "grid.yaml:3: name: 'a b' is no name: use up to 100 letters, digits, - _ and ., starting with a letter or digit"),
    (with_line("name: 2024"), "grid.yaml:3: name: expected text, got 2024: put it in quotes"),
    (with_line("description: [a]"), "grid.yaml:3: description: expected text, got a list"),
    (with_line("checkpoint: lst"), "grid.yaml:3: checkpoint: expected one of last, best, got 'lst'. Did you mean 'last'?"),
    (with_line("checkpoint: [last]"), "grid.yaml:3: checkpoint: expected one of last, best, got a list"),
    (with_line("tracking: {url: x}"), "grid.yaml:3: tracking: unknown key 'url'. Did you mean 'uri'? It has: uri"),
    (with_line("tracking: {uri: 3}"), "grid.yaml:3: tracking.uri: expected text, got 3: put it in quotes"),
    (with_line("tracking: {uri: runs.db}"), "grid.yaml:3: tracking.uri: 'runs.db' is not a URI. Did you mean 'sqlite:///runs.db'?"),
    (with_line("tracking: {uri: 'sqlite://a/b.db'}"), "grid.yaml:3: tracking.uri: 'sqlite://a/b.db' needs three slashes. Did you mean 'sqlite:///a/b.db'?"),
    (with_line("executor: {kind: slurm}"), "grid.yaml:3: executor.kind: expected one of local, ray, got 'slurm'"),
    (with_line("executor: {devices: gpu}"), "grid.yaml:3: executor.devices: unknown devices 'gpu': write auto, cpu or a list such as ['cuda:0', 'cuda:1']"),
    (with_line("executor: {devices: [gpu]}"), "grid.yaml:3: executor.devices[0]: unknown device 'gpu': write cpu, mps, cuda or cuda:0, cuda:1, ..."),
    (with_line("executor: {devices: ['cuda:0', 'cuda:0']}"), "grid.yaml:3: executor.devices: a device is given twice; "
     "'slots' says how many trainings share one"),
    (with_line("executor: {slots: 0}"), "grid.yaml:3: executor.slots: expected auto or a number of at least 1, got 0"),
    (with_line("executor: {capture: maybe}"), "grid.yaml:3: executor.capture: expected true or false, got 'maybe'"),
    (with_line("executor: {timeout_s: -1}"), "grid.yaml:3: executor.timeout_s: expected a number above 0, got -1"),
    (with_line("executor: auto"), "grid.yaml:3: executor: expected a mapping, got 'auto'"),
    (with_line("label_ratio: 1"), "grid.yaml:3: unknown key 'label_ratio'. Did you mean 'label_ratios'? A grid has: name, description, methods, datasets, "
     "label_ratios, modalities, corruptions, seeds, train, checkpoint, save, tracking, executor"),
    # the file as YAML
    (with_line("seeds: 3\nseeds: 4"), "grid.yaml:4: the key 'seeds' is given twice (first on line 3)"),
    (with_methods("fake: {tau: 1, tau: 2}"), "grid.yaml:2: the key 'tau' is given twice (first on line 2)"),
    (with_line("3: 4"), "grid.yaml:3: a key must be text, got 3; put it in quotes"),
    ("", "grid.yaml: the file is empty; a grid needs at least 'methods' and 'datasets'"),
    ("# only words\n", "grid.yaml: the file is empty; a grid needs at least 'methods' and 'datasets'"),
    ("- fake", "grid.yaml:1: expected a mapping with keys, got a list; a grid needs at least 'methods' and 'datasets'"),
    ("\nfake", "grid.yaml:2: expected a mapping with keys, got 'fake'; a grid needs at least 'methods' and 'datasets'"),
    (with_line("---\nseeds: 3"), "grid.yaml:3: a second document starts here; a grid file holds one"),
    (with_line("seeds: !!python/object/apply:os.system ['true']"), "grid.yaml:3: the tag 'tag:yaml.org,2002:python/object/apply:os.system' "
     "is not used in grids; remove it"),
    (with_line("seeds: !!int '3'"), "grid.yaml:3: the tag 'tag:yaml.org,2002:int' is not used in grids; remove it"),
    (with_line("seeds: *s"), "grid.yaml:3: the alias '*s' has no anchor '&s' before it"),
    (with_line("seeds: &s [*s]"), "grid.yaml:3: the alias '*s' stands inside its own anchor"),
    (with_line("seeds: " + "[" * 30 + "]" * 30), "grid.yaml:3: nested more than 20 levels deep"),
    # corruptions
    (with_line("corruptions: [{gausian: {text: 1}}]"), "grid.yaml:3: corruptions[0]: unknown corruption 'gausian'. Did you mean 'gaussian'? "
     "There are: gaussian, mask, swap"),
    (with_line("corruptions: [mask]"), "grid.yaml:3: corruptions[0]: expected a mapping such as gaussian: {image: 0.18}, got 'mask'"),
    (with_line("corruptions: [mask: 0.1]"), "grid.yaml:3: corruptions[0].mask: expected a mapping of modalities to levels such as mask: {image: 0.1}, got 0.1"),
    (with_line("corruptions: [mask: {text: 1.5}]"), "grid.yaml:3: corruptions[0].mask.text: a share is above 0 and at most 1, got 1.5"),
    (with_line("corruptions: [gaussian: {text: [0.1, 0]}]"), "grid.yaml:3: corruptions[0].gaussian.text[1]: a standard deviation is above 0, got 0"),
    (with_line("corruptions: [mask: {text: much}]"), "grid.yaml:3: corruptions[0].mask.text: expected a number, got 'much'"),
    (with_line("corruptions: [mask: {text: [0.1, 0.1]}]"), "grid.yaml:3: corruptions[0]: 'mask(text)=0.1' is given twice"),
]  # fmt: skip
