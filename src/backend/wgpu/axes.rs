//! What a launch is told of its axes.

/// A table of axes, slowest first and the fastest last: the size of each and its stride in every tensor.
pub(super) struct Axes {
    pub(super) numbers: Vec<u32>,
    width: usize,
    /// Where those that are not just there to fill the table begin.
    first: usize,
}

impl Axes {
    pub(super) fn new(length: u32, width: usize, sizes: &[usize]) -> Self {
        let numbers = vec![0; width * length as usize];
        let mut axes = Axes { numbers, width, first: 0 };
        axes.set(0, std::iter::repeat_n(1, length as usize));
        axes.first = width * (length as usize - sizes.len());
        axes.set(0, sizes.iter().map(|&size| size as u32));
        axes
    }

    /// Sets the `n`-th number of each axis.
    pub(super) fn set(&mut self, n: usize, values: impl Iterator<Item = u32>) {
        let axes = self.numbers[self.first..].chunks_exact_mut(self.width);
        axes.zip(values).for_each(|(axis, value)| axis[n] = value);
    }
}
