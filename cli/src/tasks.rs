//! What the benchmark measures: each method on the shapes that it has in networks, and the goals.

use crate::arguments::BenchArguments;
use crate::failure::{Failure, Result};
use crate::method::{Dim, MethodName as Name, Settings};
use crate::speed::Direction;
use crate::surroundings::Surroundings;
use normkit::tensor::{DType, Layout};

/// Bytes of an input whose first axis is not given: more than the caches hold.
const INPUT_BYTES: usize = 64 << 20;

/// A method on inputs of one shape and memory order.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) method: Name,
    pub(crate) settings: Settings,
    pub(crate) surroundings: Surroundings,
    pub(crate) shape: Vec<usize>,
    /// Axis 1 is innermost in memory.
    pub(crate) channels_last: bool,
    /// What a user would add to the shape to say what is measured.
    note: &'static str,
}

impl Task {
    fn new(method: Name, shape: &[usize]) -> Self {
        let (settings, surroundings) = (Settings::default(), Surroundings::default());
        Task { method, settings, surroundings, shape: shape.to_vec(), channels_last: false, note: "" }
    }

    /// How its tensors lie in memory.
    pub(crate) fn layout(&self) -> Result<Layout> {
        if !self.channels_last {
            return Ok(Layout::contiguous(&self.shape));
        }
        let mut order: Vec<usize> = (0..self.shape.len()).filter(|&axis| axis != 1).collect();
        order.push(1);
        let memory: Vec<usize> = order.iter().map(|&axis| self.shape[axis]).collect();
        let mut strides = vec![0; self.shape.len()];
        for (&axis, &stride) in order.iter().zip(Layout::contiguous(&memory).strides()) {
            strides[axis] = stride;
        }
        Ok(Layout::strided(&self.shape, &strides, 0)?)
    }

    /// Shape and what else distinguishes the task from others of its method.
    pub(crate) fn label(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let order = if self.channels_last { " channels-last" } else { "" };
        format!("{}{order}{}{}", sizes.join(" x "), self.note, self.surroundings.label())
    }

    /// Rows and columns of a copy of as many elements.
    pub(crate) fn copy_shape(&self) -> [usize; 2] {
        let elements: usize = self.shape.iter().product();
        let last = self.shape.last().copied().unwrap_or(1).max(1);
        let cols = if self.method.is_trailing() { last } else { 1024 };
        [elements.div_ceil(cols), cols]
    }

    /// The most that a pass may take, in units of the copy's time.
    pub(crate) fn goal(&self, backend: &str, dtype: DType, direction: Direction) -> Option<f64> {
        let is_row = self.method.is_trailing() || self.method == Name::QkNorm;
        let single = dtype == DType::F32;
        match (backend, direction) {
            (_, _) if dtype == DType::F64 => None,
            ("cpu", Direction::Forward) if is_row => Some(if single { 1.25 } else { 1.6 }),
            ("cpu", Direction::Backward) if is_row => Some(1.7),
            ("cpu", _) if !single => None,
            ("cpu", Direction::Forward) if self.method == Name::BatchNorm => Some(1.75),
            ("cpu", Direction::Backward) if self.method == Name::BatchNorm => Some(2.0),
            ("cpu", _) if self.method == Name::WeightNorm => Some(1.4),
            ("cpu", Direction::Forward) => Some(1.4),
            ("wgpu", Direction::Forward) if is_row => Some(1.3),
            ("wgpu", _) => Some(2.0),
            // 85 % of the copy's bandwidth, and 75 %.
            ("cuda", Direction::Forward) if is_row => Some(1.18),
            ("cuda", Direction::Backward) if is_row => Some(1.33),
            _ => None,
        }
    }
}

/// The tasks that the arguments ask for, for inputs of `dtype`.
pub(crate) fn tasks(arguments: &BenchArguments, dtype: DType) -> Result<Vec<Task>> {
    let wanted = |task: &Task| arguments.method.is_none_or(|method| method == task.method);
    let mut tasks: Vec<Task> = typical().into_iter().filter(wanted).collect();
    if let (Some(shape), Some(first)) = (&arguments.shape, tasks.first().cloned()) {
        if shape.is_empty() || shape.contains(&0) {
            return Err(Failure::new("--shape: expected sizes of at least 1"));
        }
        tasks = vec![Task { shape: shape.clone(), channels_last: false, note: "", ..first }];
    }
    for task in &mut tasks {
        if let Some(method) = arguments.method {
            arguments.settings.check(method)?;
            task.surroundings = arguments.surroundings;
            let settings = &arguments.settings;
            task.settings = Settings {
                dim: settings.dim.or(task.settings.dim),
                groups: settings.groups.or(task.settings.groups),
                ..settings.clone()
            };
        }
        let rest: usize = task.shape[1..].iter().product::<usize>().max(1);
        match arguments.elements {
            Some(0) => return Err(Failure::new("--elements: expected at least 1, found 0")),
            Some(elements) => task.shape[0] = (elements / rest).max(1),
            // A first axis of 0 stands for as many as make the bytes.
            None if task.shape[0] == 0 => task.shape[0] = (INPUT_BYTES / dtype.size() / rest).max(1),
            None => {}
        }
    }
    Ok(tasks)
}

fn typical() -> Vec<Task> {
    let weight_norm = |axis, note| Task {
        settings: Settings { dim: Some(Dim::Axis(axis)), ..Settings::default() },
        note,
        ..Task::new(Name::WeightNorm, &[4096, 4096])
    };
    let last = |task: Task| Task { channels_last: true, ..task };
    vec![
        Task::new(Name::LayerNorm, &[0, 1024]),
        Task::new(Name::RmsNorm, &[0, 1024]),
        Task::new(Name::Dyt, &[0, 1024]),
        Task::new(Name::Eln, &[0, 1024]),
        Task::new(Name::BatchNorm, &[64, 64, 56, 56]),
        last(Task::new(Name::BatchNorm, &[64, 64, 56, 56])),
        Task::new(Name::GroupNorm, &[32, 256, 14, 14]),
        Task::new(Name::GroupNorm, &[8, 512, 64, 64]),
        last(Task::new(Name::GroupNorm, &[8, 512, 64, 64])),
        Task::new(Name::InstanceNorm, &[32, 64, 64, 64]),
        Task::new(Name::LayerNorm2d, &[32, 96, 56, 56]),
        Task::new(Name::QkNorm, &[16, 1024, 16, 64]),
        Task::new(Name::Normalize, &[32, 256, 32, 32]),
        weight_norm(0, ", dim 0"),
        weight_norm(1, ", dim 1"),
    ]
}
